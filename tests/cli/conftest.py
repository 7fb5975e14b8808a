from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fastserve.cli import main
from tests.support.shop_repo import write_shop_repo


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder and an empty environment, as a shell would see it."""
    monkeypatch.chdir(tmp_path)

    def run_command(*argv: str, **environ: str) -> Ran:
        capfd.readouterr()
        try:
            code = main(argv, environ)
        except SystemExit as leaving:  # argparse's own
            code = leaving.code if isinstance(leaving.code, int) else 1
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run_command


@pytest.fixture
def shop(tmp_path: Path) -> str:
    return str(write_shop_repo(tmp_path / "shop"))


@dataclass
class CannedServer:
    """An HTTP server that gives one answer to everything, or to each path its own, and remembers what it was
    asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    body_at: dict[str, bytes] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def canned() -> Iterator[CannedServer]:
    state = CannedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.paths.append(self.path)
            state.headers.append(dict(self.headers))
            state.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            body = state.body_at.get(self.path, state.body)
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()
