"""Workers that have served enough, replaced on real processes while clients go on asking."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

from tests.support.server_process import Connection, Server, eventually, kill, serving

CLIENTS = 6
REPLACED = r"serves in place of worker"


def ask_until(server: Server, done: threading.Event, lost: list[str], number: int) -> None:
    """Ask without end; a client that keeps its connection opens another after an answer that says so."""
    connection: Connection | None = None
    count = 0
    try:
        while not done.is_set():
            connection = connection or server.connect()
            answer = connection.ask("/echo", b"%d" % count)
            assert answer.body == b"%d" % count
            count += 1
            if number % 2 or answer.headers.get("connection") == "close":
                connection.close()
                connection = None
    except (OSError, AssertionError) as error:
        lost.append(f"client {number} after {count}: {error!r}")


def test_no_request_is_lost_while_workers_are_replaced_one_after_the_other() -> None:
    lost: list[str] = []
    done = threading.Event()
    with serving(workers=2, max_requests=100) as server:
        before = set(server.workers())
        clients = [
            threading.Thread(target=ask_until, args=(server, done, lost, number)) for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        try:
            server.wait_for(f"(?s)({REPLACED}.*){{4}}")
        finally:
            done.set()
            for client in clients:
                client.join()
        eventually(lambda: len(server.workers()) == 2)
        assert not before & set(server.workers())
        assert server.stop() == 0
    assert lost == []
    assert "died" not in server.said
    assert re.search(r"is to be replaced: it has answered \d+ requests", server.said)


def test_a_worker_that_holds_too_much_is_replaced_and_its_connections_are_told() -> None:
    with serving(max_rss_mb=100) as server:
        (before,) = server.workers()
        connection = server.connect()
        assert connection.ask("/hoard?100").status == 200
        server.wait_for(rf"pid {before}\) is to be replaced: it holds \d+ MB")
        server.wait_for(REPLACED)
        eventually(lambda: connection.ask("/pid").headers.get("connection") == "close")
        connection.close()
        eventually(lambda: before not in server.workers())
        assert len(server.workers()) == 1
        assert server.stop() == 0


def test_a_limit_that_a_fresh_worker_is_beyond_replaces_nobody() -> None:
    with serving(max_rss_mb=1) as server:
        server.wait_for("holds .* before its first request: max_rss_mb is too low, and is left out")
        workers = server.workers()
        connection = server.connect()
        assert [connection.ask("/pid").status for _ in range(3)] == [200] * 3
        assert server.workers() == workers
        assert server.stop() == 0


def test_a_successor_that_can_t_start_leaves_the_worker_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "fails"
    with serving(max_requests=1, boot=str(file)) as server:
        (before,) = server.workers()
        file.touch()
        connection = server.connect()
        connection.ask("/pid")
        server.wait_for("is not replaced: the one for its place ended with exit code 3")
        assert connection.ask("/pid").body == b"%d" % before
        assert server.stop() == 0


def test_a_reload_comes_after_a_replacement_and_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("0")
    with serving(workers=2, max_requests=20, version_file=str(file)) as server:
        for _ in range(60):
            connection = server.connect()
            connection.ask("/pid")
            connection.close()
        server.wait_for("is to be replaced")
        file.write_text("1")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded: 2 workers of generation 1")
        eventually(lambda: len(server.workers()) == 2)
        kill(server.workers()[0])
        server.wait_for("starting another")
        eventually(lambda: len(server.workers()) == 2)
        connection = server.connect()
        assert connection.ask("/version").body == b"1"
        assert server.stop() == 0
