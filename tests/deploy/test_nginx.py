"""`deploy/nginx` as it stands, run by a real nginx with TLS before servers that a test can see into."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import pytest

from fastserve.config import SETTINGS
from perf.load import nginx
from perf.load.free_port import free_port
from perf.load.nginx import CONFIGURATION, Nginx
from perf.rolling_restart import measure

pytestmark = pytest.mark.skipif(nginx.executable() is None, reason="nginx isn't installed")

TARGET = "/api/v1/feature-service/get-features"
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}


class Upstream:
    """A server that keeps the heads of what it was asked, and answers or hangs up."""

    def __init__(self, *, answers: bool = True) -> None:
        self.heads: list[str] = []
        self.connections = 0
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                received += data
                head, end, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                if not end or len(body) < int(length[1] if length else 0):
                    continue
                self.heads.append(head.decode())
                received = b""
                if not self._answers:
                    return
                connection.sendall(b'HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\n{"mine": 1}')

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@contextmanager
def upstreams(*answers: bool) -> Iterator[list[Upstream]]:
    made = [Upstream(answers=each) for each in answers]
    try:
        yield made
    finally:
        for upstream in made:
            upstream.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, list[Upstream]]]:
    with (
        upstreams(True, True) as made,
        nginx.running(tmp_path_factory.mktemp("nginx"), [each.address for each in made]) as proxy,
    ):
        yield proxy, made


def ask(proxy: Nginx, headers: Mapping[str, str] = MappingProxyType({})) -> tuple[int, bytes]:
    """Send one POST over a connection of its own."""
    connection = http.client.HTTPSConnection(
        "localhost", proxy.port, timeout=20, context=proxy.client_context()
    )
    try:
        connection.request("POST", TARGET, body=b"{}", headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_what_a_server_answers_comes_as_it_is_and_headers_reach_it(
    pair: tuple[Nginx, list[Upstream]],
) -> None:
    proxy, made = pair
    sent = {
        "X-Request-Timeout-Ms": "250",
        "Idempotency-Key": "a1",
        "Authorization": "Tecton-key fs_0",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    assert ask(proxy, sent) == (404, b'{"mine": 1}')
    head = next(upstream.heads.pop() for upstream in made if upstream.heads)
    lines = head.split("\r\n")
    assert lines[0] == f"POST {TARGET} HTTP/1.1"
    got = dict(line.split(": ", 1) for line in lines[1:])
    assert {name: got.get(name) for name in sent} == sent
    assert got["Host"] == "localhost"
    assert "Connection" not in got


def test_connections_to_the_servers_are_kept(pair: tuple[Nginx, list[Upstream]]) -> None:
    proxy, made = pair
    for _ in range(20):
        assert ask(proxy)[0] == 404
    # Each nginx worker keeps its own; one per client's connection would be 20 and more.
    workers = len(Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split())
    assert sum(upstream.connections for upstream in made) <= 2 * workers


def test_a_post_that_was_sent_is_not_sent_to_another_server(tmp_path: Path) -> None:
    with (
        upstreams(False, False) as made,
        nginx.running(tmp_path, [each.address for each in made]) as proxy,
    ):
        for asked in range(1, 5):
            status, body = ask(proxy)
            assert (status, json.loads(body)["code"]) == (502, 14)
            assert sum(len(upstream.heads) for upstream in made) == asked


def test_where_a_server_refuses_the_connection_the_other_one_answers(tmp_path: Path) -> None:
    with (
        upstreams(True) as (there,),
        nginx.running(tmp_path, [f"127.0.0.1:{free_port()}", there.address]) as proxy,
    ):
        assert [ask(proxy)[0] for _ in range(10)] == [404] * 10
        assert len(there.heads) == 10


def test_nginx_s_own_errors_are_json(pair: tuple[Nginx, list[Upstream]], tmp_path: Path) -> None:
    proxy, _ = pair
    connection = http.client.HTTPSConnection(
        "localhost", proxy.port, timeout=20, context=proxy.client_context()
    )
    connection.putrequest("POST", TARGET)
    connection.putheader("Content-Length", str(7 * 1024 * 1024))
    connection.endheaders()
    too_large = connection.getresponse()
    assert (too_large.status, json.loads(too_large.read())["code"]) == (413, 3)
    connection.close()
    nobody = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    with nginx.running(tmp_path, nobody) as lonely:
        status, body = ask(lonely)
    assert (status, json.loads(body)) == (
        502,
        {"error": "no server reached", "message": "no server reached", "code": 14},
    )


def test_without_tls_there_is_nothing_but_nginx_s_health(pair: tuple[Nginx, list[Upstream]]) -> None:
    proxy, made = pair
    asked = sum(len(upstream.heads) for upstream in made)
    for path, status in (("/nginx/healthz", 200), (TARGET, 404), ("/healthz", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.health_port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (path, answer.status) == (path, status)
        json.loads(answer.read())
        connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.request("POST", TARGET, body=b"{}")
    assert connection.getresponse().status == 400
    connection.close()
    assert sum(len(upstream.heads) for upstream in made) == asked


def test_tls_is_new_enough_and_sessions_are_resumed(pair: tuple[Nginx, list[Upstream]]) -> None:
    proxy, _ = pair
    context = proxy.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose session is known once the handshake is done
    with (
        socket.create_connection(("127.0.0.1", proxy.port)) as first,
        context.wrap_socket(first, server_hostname="localhost") as secured,
    ):
        session = secured.session
    for _ in range(8):  # whichever worker takes it
        with (
            socket.create_connection(("127.0.0.1", proxy.port)) as again,
            context.wrap_socket(again, server_hostname="localhost", session=session) as resumed,
        ):
            assert resumed.session_reused
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(proxy.certificate)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", proxy.port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(plain, server_hostname="localhost")


def test_two_instances_are_restarted_in_turns_under_load_without_a_502(tmp_path: Path) -> None:
    outcome = measure(restarts=2, clients=4, folder=tmp_path, pause_s=0.02)
    assert outcome.failures == []
    assert set(outcome.statuses) == {200}
    assert outcome.restarts == 2
    assert outcome.statuses[200] > 100


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|h)", text, re.ASCII).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "h": 3600}[unit]


def directives(name: str, text: str) -> list[str]:
    return re.findall(rf"^\s*{name} ([^;]+);", text, re.MULTILINE)


def test_every_timeout_and_limit_is_on_the_right_side_of_fastserve_s() -> None:
    text = (CONFIGURATION / "conf.d" / "fastserve.conf").read_text()
    proxy_text = (CONFIGURATION / "fastserve-proxy.conf").read_text()
    defaults = {name: value for name, value in DEFAULTS.items() if isinstance(value, int)}
    to_servers, to_clients = map(seconds, directives("keepalive_timeout", text))
    assert to_servers < defaults["idle_timeout_ms"] / 1000
    assert to_clients > 60
    read, read_ingest = map(seconds, directives("proxy_read_timeout", text))
    assert read > defaults["server_timeout_ms"] / 1000
    assert read_ingest > defaults["ingest_timeout_ms"] / 1000
    assert seconds(directives("client_header_timeout", text)[0]) <= defaults["header_timeout_ms"] / 1000
    assert directives("client_max_body_size", text) == ["6m"]
    assert defaults["body_limit_bytes"] == 5 * 1024 * 1024
    assert "non_idempotent" not in directives("proxy_next_upstream", proxy_text)[0]
