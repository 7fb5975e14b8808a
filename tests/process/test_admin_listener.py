"""The second listener on real processes: what it answers, and until when."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from tests.support.server_process import Connection, Server, eventually, serving, starting


def counts(connection: Connection) -> dict[str, int]:
    found: dict[str, int] = json.loads(connection.ask("/").body)
    return found


def test_there_is_none_unless_a_port_is_given() -> None:
    with serving() as server:
        assert "admin" not in server.said


def test_its_connections_and_answers_are_not_counted_with_the_clients() -> None:
    with serving(admin_port=0) as server:
        admin = server.connect_admin()
        client = server.connect()
        for _ in range(3):
            client.ask("/echo")
        eventually(lambda: counts(admin)["answers"] == 3)
        found = counts(admin)
        assert (found["connections"], found["accepted"], found["answers"]) == (1, 1, 3)
        admin.close()


def test_it_answers_until_the_last_client_has_gone() -> None:
    with serving(admin_port=0) as server:
        client = server.connect()
        client.send(b"POST /later?600 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        first = server.connect_admin()
        first.ask("/")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_closing(server))
        assert client.read().status == 200
        assert server.wait() == 0
        assert first.is_closed_by_server()


def is_closing(server: Server) -> bool:
    """Whether a new connection is still answered, and told not to stay."""
    connection = server.connect_admin()
    try:
        return connection.ask("/").headers.get("connection") == "close"
    finally:
        connection.close()


def test_after_a_reload_only_the_new_workers_answer(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("0")
    with serving(version_file=str(file), admin_port=0) as server:
        first = server.connect_admin()
        assert first.ask("/").status == 200
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded: 1 worker of generation 1")
        eventually(lambda: len(server.workers()) == 1)
        assert first.is_closed_by_server()
        assert server.connect_admin().ask("/").status == 200
        assert server.stop() == 0


@pytest.mark.parametrize("admin_host", ["127.0.0.1", "no.such.host.invalid"])
def test_an_address_that_cannot_be_listened_on_ends_the_start(admin_host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with starting(admin_port=port, admin_host=admin_host) as server:
            assert server.wait() == 1
    assert server.said.startswith(f"can't listen on http://{admin_host}:{port}: ")
