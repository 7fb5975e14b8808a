"""The server's processes: how they start, die, are replaced, and end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.server_process import (
    ROOT,
    Connection,
    Server,
    eventually,
    is_alive,
    kill,
    serving,
    starting,
)


def counts(server: Server) -> dict[str, int]:
    connection = server.connect()
    try:
        body = connection.ask("/ready").body
    finally:
        connection.close()
    return {name: int(value) for name, value in re.findall(r'"(\w+)": (\d+)', body.decode())}


def test_it_answers_and_ends_with_0_on_sigterm() -> None:
    with serving() as server:
        connection = server.connect()
        assert connection.ask("/echo", b"hello").body == b"hello"
        assert connection.ask("/nowhere").status == 404
        assert server.stop() == 0
        assert connection.is_closed_by_server()
    assert "stopped" in server.said


def test_sigint_ends_it_like_sigterm() -> None:
    with serving(workers=2) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.said.count("stopped") == 2


def test_it_listens_on_ipv6() -> None:
    with serving(host="::1") as server:
        assert "listening on http://[::1]:" in server.said
        assert server.connect().ask("/echo", b"6").body == b"6"


def test_a_port_in_use_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with starting(port=port) as server:
            assert server.wait() == 1
    assert server.said == (
        f"can't listen on http://127.0.0.1:{port}: the port is in use by another process; "
        "stop that one or choose another port\n"
    )


def test_an_address_that_is_not_ours_is_said_so() -> None:
    with starting(host="no.such.host.invalid") as server:
        assert server.wait() == 1
    assert server.said.startswith("can't listen on http://no.such.host.invalid:0: ")


@pytest.mark.parametrize(
    "boot, reason, how",
    [
        ("fails", "worker 0 can't start: StoreError: the store is unreachable", "exit code 3"),
        ("crashes", "worker 0 can't start: ZeroDivisionError", "exit code 3"),
        ("dies", "", "exit code 7"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_server_with_the_reason(boot: str, reason: str, how: str) -> None:
    with starting(boot=boot) as server:
        assert server.wait() == 3
    assert reason in server.said
    assert re.search(rf"worker 0 \(pid \d+\) could not start \({how}\); stopping", server.said)
    assert "listening" not in server.said


def test_a_worker_that_does_not_get_ready_ends_the_server() -> None:
    with starting(boot="hangs", boot_timeout_s=0.5) as server:
        assert server.wait() == 3
    assert "was not ready in 0.5 s" in server.said


def test_nobody_can_connect_before_a_worker_is_ready() -> None:
    """A proxy then asks another server, in place of waiting for the start of this one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with starting(boot="hangs", port=port) as server:
        eventually(lambda: len(server.workers()) == 1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        assert server.stop() == 0


def test_of_two_servers_that_start_on_one_port_the_later_says_why_it_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with ExitStack() as stack:
        both = [stack.enter_context(starting(port=port, boot="waits")) for _ in range(2)]
        for server in both:
            server.wait_for("waiting")
        for server in both:
            for worker in server.workers():
                kill(worker, signal.SIGUSR1)
        eventually(lambda: any(server.process.poll() is not None for server in both))
        (ended,) = [server for server in both if server.process.poll() is not None]
        assert ended.wait() in {1, 3}
        assert f"can't listen on http://127.0.0.1:{port}: the port is in use by another process" in ended.said
        (left,) = [server for server in both if server is not ended]
        left.wait_until_listening()
        assert left.connect().ask("/echo", b"x").body == b"x"


def test_a_worker_that_starts_ends_at_once_when_told_to() -> None:
    with starting(boot="hangs") as server:
        eventually(lambda: len(server.workers()) == 1)
        started_s = time.monotonic()
        assert server.stop() == 0
    assert time.monotonic() - started_s < 3


def test_a_worker_that_dies_is_replaced() -> None:
    with serving(workers=2) as server:
        before = set(server.workers())
        connection = server.connect()
        with pytest.raises(ConnectionResetError):
            connection.ask("/die")
        server.wait_for(r"worker \d \(pid \d+\) died \(exit code 9\); starting another in 0 s")
        eventually(lambda: len(server.workers()) == 2)
        after = set(server.workers())
        assert len(before & after) == 1
        eventually(lambda: server.connect().ask("/pid").status == 200)
        kill((after - before).pop())
        server.wait_for(r"died \(killed by SIGKILL\); starting another in 0.1 s")
        eventually(lambda: len(server.workers()) == 2)
        assert server.stop() == 0


def test_a_replacement_that_cannot_start_is_tried_again_while_another_worker_serves(tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    with serving(workers=2, boot=str(obstacle)) as server:
        obstacle.write_text("")
        kill(server.workers()[0])
        server.wait_for(r"died \(exit code 3\); starting another in 0.5 s")
        assert server.connect().ask("/echo", b"x").body == b"x"
        obstacle.unlink()
        eventually(lambda: len(server.workers()) == 2)
        assert server.stop() == 0


def test_a_silent_worker_is_killed_and_replaced() -> None:
    with serving(heartbeat_timeout_s=1.2) as server:
        (worker,) = server.workers()
        server.connect().send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_for(rf"worker 0 \(pid {worker}\) was silent for \d\.\d s: killing it")
        server.wait_for(r"in application")  # where it was stuck
        server.wait_for(r"died \(killed by SIG(ABRT|KILL)\)")
        assert server.connect().ask("/echo", b"again").body == b"again"


def test_no_worker_outlives_the_arbiter() -> None:
    with serving(workers=2) as server:
        workers = server.workers()
        server.process.kill()
        eventually(lambda: not any(is_alive(worker) for worker in workers))


def test_requests_in_flight_finish_and_the_connection_is_closed_after_them() -> None:
    with serving() as server:
        busy, idle = server.connect(), server.connect()
        idle.ask("/echo")
        busy.send(b"GET /later?800 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: counts(server)["accepted"] >= 2)
        server.process.send_signal(signal.SIGTERM)
        assert idle.is_closed_by_server()
        answer = busy.read()
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"later", "close")
        busy.close()
        assert server.wait() == 0


def test_readyz_is_false_while_draining_and_new_connections_are_refused() -> None:
    with serving(drain_grace_s=5) as server:
        busy, probe = server.connect(), server.connect()
        assert probe.ask("/ready").status == 200
        busy.send(b"GET /later?500 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: counts(server)["accepted"] >= 2)
        server.process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            try:
                server.connect().close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(is_refused)
        answer = probe.ask("/ready")
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert busy.read().status == 200


def test_what_does_not_finish_is_cut_after_the_shutdown_timeout() -> None:
    with serving(shutdown_timeout_s=0.5) as server:
        connection = server.connect()
        connection.send(b"GET /later?60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: counts(server)["accepted"] >= 1)
        started_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_s < 5


def test_a_stuck_worker_does_not_keep_the_server_from_ending() -> None:
    with serving(shutdown_timeout_s=0.2, heartbeat_timeout_s=60) as server:
        server.connect().send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        started_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_s < 10


def test_a_second_sigint_ends_it_at_once() -> None:
    with serving() as server:
        connection = server.connect()
        connection.send(b"GET /later?60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: counts(server)["accepted"] >= 1)
        server.process.send_signal(signal.SIGINT)
        assert server.connect is not None
        eventually(lambda: not _accepts(server))
        server.process.send_signal(signal.SIGINT)
        started_s = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - started_s < 5


def _accepts(server: Server) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True


def test_clients_that_keep_asking_while_it_ends_lose_no_answer() -> None:
    """Each request is answered, or its connection was closed by an answer that said so."""
    lost: list[str] = []
    connected: list[Connection] = []

    def ask_until_told_to_stop(server: Server) -> None:
        connection = server.connect()
        connected.append(connection)  # it may still be queued: that is no excuse
        try:
            while connection.ask("/echo", b"x").headers.get("connection") != "close":
                pass
        except OSError as error:
            lost.append(repr(error))

    with serving(workers=2) as server:
        clients = [threading.Thread(target=ask_until_told_to_stop, args=(server,)) for _ in range(16)]
        for client in clients:
            client.start()
        eventually(lambda: len(connected) == 16)
        assert server.stop() == 0
        for client in clients:
            client.join()
    assert lost == []


def test_the_counts_of_all_workers_are_one_sum() -> None:
    with serving(workers=2) as server:
        connections = [server.connect() for _ in range(8)]
        for connection in connections:
            connection.ask("/echo")
            connection.ask("/nowhere")
        eventually(lambda: counts(server)["client_errors"] == 8)
        assert counts(server)["answers"] >= 16
        eventually(lambda: counts(server)["connections"] == 9)
        for connection in connections:
            connection.close()
        eventually(lambda: counts(server)["connections"] == 1)


def test_as_process_1_it_reaps_strangers() -> None:
    """Run it as the child subreaper that process 1 of a container is, with an orphan of somebody else's."""
    code = """
import ctypes, os, runpy, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    if os.fork() == 0:
        os.read(0, 1)
        os._exit(0)
    os._exit(0)
os.wait()
sys.argv = ["echo", '{"port": 0}']
runpy.run_module("tests.support.echo_server", run_name="__main__")
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        server = Server(process)
        try:
            server.wait_for("listening")
            assert len(server.workers()) == 2
            assert process.stdin is not None
            process.stdin.close()
            eventually(lambda: len(server.workers()) == 1)
            assert server.stop() == 0
        finally:
            process.kill()
