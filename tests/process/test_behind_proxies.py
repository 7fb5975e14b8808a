"""One request gives exactly one answer, and to whoever asked: behind nginx and behind HAProxy, run for real.

What readers of HTTP differ on is sent through them to our protocol. Proxies mend some of it and refuse some;
what reaches us has to be one request for us where it was one for them, or the answers of a connection that
clients share go to the wrong ones.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from perf.load import nginx
from perf.load.free_port import free_port
from tests.support import haproxy
from tests.support.recording_server import Recorder, recording

TARGET = "/api/v1/feature-service/get-features"
CORPUS = Path(__file__).parents[1] / "golden" / "requests"
LONG_BYTES = 12_000
SILENCE_S = 1.0
AT_ONCE = 64
LINE = re.compile(rb"^([A-Z]+) /[!-~]* (HTTP/[0-9.]+)", re.MULTILINE)
BODIES = re.compile(rb'\{"number":(\d+),"target":"([^"]*)"\}')


def messages() -> list[bytes]:
    """Return the corpus, each of its requests with a target that the proxies hand on, and that names it."""
    found: list[bytes] = []
    for path in sorted(CORPUS.glob("*/*.http")):
        raw = path.read_bytes()
        if len(raw) < LONG_BYTES and not raw.startswith(b"HEAD "):  # whose answers have no number
            target = f"{TARGET}?n={len(found)}".encode()
            found.append(LINE.sub(rb"\1 " + target + rb" \2", raw))
    return found


def last(number: int) -> bytes:
    head = f"GET {TARGET}?n={number}&last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    return head.encode()


class Client:
    """Sends one message and a request after it, and reads all that comes back."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self._port = port
        self._tls = tls
        self._places = asyncio.Semaphore(AT_ONCE)

    async def ask(self, message: bytes) -> bytes:
        """Return what came until the end, or until nothing came for a while."""
        async with self._places:
            name = None if self._tls is None else "localhost"
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._tls, server_hostname=name
            )
            received = b""
            with suppress(ConnectionError, TimeoutError, ssl.SSLError):
                writer.write(message)
                while data := await asyncio.wait_for(reader.read(65536), SILENCE_S):
                    received += data
            writer.transport.abort()
            return received


async def ask_all(client: Client, requests: list[bytes]) -> list[bytes]:
    return await asyncio.gather(*[client.ask(request) for request in requests])


@contextmanager
def behind_haproxy(folder: Path, recorder: Recorder) -> Iterator[Client]:
    if haproxy.executable() is None:
        pytest.skip("HAProxy isn't installed")
    port = free_port()
    with haproxy.running(folder, recorder.port, port):
        yield Client(port, None)


@contextmanager
def behind_nginx(folder: Path, recorder: Recorder) -> Iterator[Client]:
    if nginx.executable() is None:
        pytest.skip("nginx isn't installed")
    with nginx.running(folder, [f"127.0.0.1:{recorder.port}"] * 2) as running:
        yield Client(running.port, running.client_context())


Behind = Callable[[Path, Recorder], AbstractContextManager[Client]]


@pytest.mark.parametrize("behind", [behind_haproxy, behind_nginx])
def test_one_request_gives_exactly_one_answer(behind: Behind, tmp_path: Path) -> None:
    raw = messages()
    requests = [message + last(number) for number, message in enumerate(raw)]
    # Between them requests that everyone agrees on: theirs are the answers that would be taken by others.
    plain = [last(number) for number in range(len(raw), 2 * len(raw))]
    asked = [request for pair in zip(requests, plain, strict=True) for request in pair]
    with recording() as recorder, behind(tmp_path, recorder) as client:
        received = asyncio.run(ask_all(client, asked))
        targets = list(recorder.targets)
    numbers: list[int] = []
    for at, answers in enumerate(received):
        for number, target in BODIES.findall(answers):
            own = at // 2 if at % 2 == 0 else len(raw) + at // 2
            named = re.search(rb"\?n=(\d+)", target)
            # What has targets of another form can't be named; a plain one can.
            is_own = int(named[1]) == own if named is not None else at % 2 == 0
            assert is_own, f"{asked[at]!r} got the answer of {target!r}"
            numbers.append(int(number))
    assert len(numbers) == len(set(numbers)), "an answer came twice"
    # Nothing is answered that nobody waits for: what is lacking belonged to a client that went away.
    lacking = set(range(len(targets))) - set(numbers)
    assert not lacking, [targets[number] for number in lacking]
    for at in range(1, len(asked), 2):
        assert len(BODIES.findall(received[at])) == 1, "a plain request was not answered once"
    assert len(numbers) > len(plain) + len(list(CORPUS.glob("valid/*.http")))
