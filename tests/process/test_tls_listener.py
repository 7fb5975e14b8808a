"""TLS on real processes: who is let in, what is resumed, what a reload changes, what a client can't hold."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastserve.cli.serve import tls_context
from fastserve.config import Settings
from fastserve.errors import DefinitionError
from tests.support.certificates import Authority, Certificate
from tests.support.feature_server import starting_features
from tests.support.server_process import PATIENCE_S, Connection, Server, eventually, serving

HANDSHAKE_S = 0.7


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def made(authority: Authority) -> Certificate:
    return authority.issue("server")


@contextmanager
def tls_serving(made: Certificate, *client_ca: Path, **settings: object) -> Iterator[Server]:
    with serving(tls=[str(path) for path in (made.cert, made.key, *client_ca)], **settings) as server:
        yield server


def connect(
    server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Connection, ssl.SSLSocket]:
    connection = server.connect_tls(context, session)
    assert isinstance(connection.socket, ssl.SSLSocket)
    return connection, connection.socket


def ask(server: Server, context: ssl.SSLContext, target: str) -> bytes:
    connection, _ = connect(server, context)
    answer = connection.ask(target)
    connection.close()
    return answer.body


def serial_number(server: Server, context: ssl.SSLContext) -> str:
    connection, sock = connect(server, context)
    found = sock.getpeercert()
    connection.close()
    assert found is not None
    return str(found["serialNumber"])


def open_connections(server: Server, context: ssl.SSLContext) -> int:
    totals: dict[str, int] = json.loads(ask(server, context, "/ready"))
    return totals["connections"]


def test_requests_large_bodies_and_refusals_are_answered_over_tls(
    authority: Authority, made: Certificate
) -> None:
    with tls_serving(made) as server:
        assert "listening on https://" in server.said
        connection, sock = connect(server, authority.client())
        assert sock.version() == "TLSv1.3"
        body = bytes(1_000_000)
        assert connection.ask("/echo", body).body == body
        assert connection.ask("/echo", b"again").body == b"again"
        connection.send(b"nonsense\r\n\r\n")
        assert connection.read().status == 400
        assert connection.is_closed_by_server()
        connection.close()
        eventually(lambda: open_connections(server, authority.client()) == 1)
        assert server.stop() == 0
    assert "Traceback" not in server.said
    assert "no effect" not in server.said  # of a half-closed connection, which TLS has not


def test_nothing_older_than_tls_1_2_and_no_plain_request_is_answered(
    authority: Authority, made: Certificate
) -> None:
    old = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    exact = authority.client()
    exact.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_serving(made) as server:
        with pytest.raises(ssl.SSLError):
            connect(server, old)
        plain = server.connect()
        plain.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        plain.socket.settimeout(PATIENCE_S)
        assert b"HTTP" not in plain.socket.recv(100)
        assert ask(server, exact, "/pid")
        assert server.stop() == 0


def test_only_clients_with_a_certificate_of_the_authority_are_let_in(
    authority: Authority, made: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "other").issue("stranger")
    with tls_serving(made, authority.cert) as server:
        assert ask(server, authority.client(authority.issue("client")), "/pid")
        for context in (authority.client(), authority.client(stranger)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(server, context, "/pid")
        server.wait_for("a TLS handshake failed: ")
        assert server.stop() == 0


def test_a_session_is_resumed_by_whichever_worker_takes_the_connection(
    authority: Authority, made: Certificate
) -> None:
    context = authority.client()
    workers: set[bytes] = set()
    with tls_serving(made, workers=2) as server:
        connection, sock = connect(server, context)
        workers.add(connection.ask("/pid").body)
        session = sock.session
        held = [connection]
        for _ in range(10):
            connection, sock = connect(server, context, session)
            workers.add(connection.ask("/pid").body)
            assert sock.session_reused
            held.append(connection)
        for connection in held:
            connection.close()
        assert len(workers) == 2
        assert server.stop() == 0


def test_a_reload_takes_a_new_certificate_and_leaves_a_broken_one(
    authority: Authority, made: Certificate
) -> None:
    context = authority.client()
    with tls_serving(made) as server:
        first = serial_number(server, context)
        shutil.copy(authority.issue("other").key, made.key)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("not reloaded: tls_cert, tls_key: .*key values mismatch")
        server.wait_for("not reloaded .*what served before goes on")
        assert serial_number(server, context) == first
        authority.issue("server")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded: 1 worker of generation 1")
        eventually(lambda: serial_number(server, context) != first)
        assert server.stop() == 0


def test_handshakes_that_never_end_and_heads_are_cut(authority: Authority, made: Certificate) -> None:
    with tls_serving(made, header_timeout_s=HANDSHAKE_S) as server:
        silent = server.connect()
        started_s = time.monotonic()
        assert silent.is_closed_by_server()
        assert time.monotonic() - started_s < HANDSHAKE_S + 2.0
        server.wait_for("a TLS handshake failed: it took too long")
        connection, _ = connect(server, authority.client())
        connection.send(b"GET / HTTP/1.1\r\n")
        assert connection.read().status == 408
        connection.close()
        eventually(lambda: open_connections(server, authority.client()) == 1)
        assert server.stop() == 0


def test_clients_that_fail_or_leave_write_one_line_and_hold_no_connection(
    authority: Authority, made: Certificate
) -> None:
    with tls_serving(made) as server:
        for number in range(60):
            connection = server.connect()
            if number % 3:
                connection.send(b"\x16\x03\x01\x00\x02hi" if number % 3 == 1 else b"GET / HTTP/1.1\r\n\r\n")
            elif number % 2:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        eventually(lambda: open_connections(server, authority.client()) == 1)
        assert server.stop() == 0
    assert server.said.count("TLS handshake") == 1
    assert "Traceback" not in server.said


REPO = """
from fastserve import Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Int64, String
user = Entity("user", join_keys=[Field("user_id", String)])
source = FileSource("people", path="people.csv")
view = FeatureView("people", entities=[user], source=source, features=[Attribute("age", Int64)])
service = FeatureService("ages", features=[view])
"""


def test_serve_takes_the_settings_and_ends_where_they_are_wrong(
    authority: Authority, made: Certificate, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "features.py").write_text(REPO)
    (repo / "fastserve.toml").write_text('workspace = "w"\n')
    (repo / "people.csv").write_text("user_id,age\nu1,5\n")
    store = f"local:{tmp_path}/store"
    files = ("--tls-cert", str(made.cert), "--tls-key", str(made.key))
    with starting_features(repo, store, "--workers", "1", *files) as server:
        server.wait_until_listening()
        connection, _ = connect(server, authority.client())
        assert connection.get("/healthz").status == 200
        connection.close()
        assert server.stop() == 0
    shutil.copy(authority.issue("other").key, made.key)
    with starting_features(repo, store, *files) as server:
        server.wait_for("tls_cert, tls_key: expected .*key values mismatch")
        assert server.wait() == 2


def test_settings_of_tls_that_lack_another_are_refused(authority: Authority, made: Certificate) -> None:
    cert, key, ca = str(made.cert), str(made.key), str(authority.cert)
    for settings, said in [
        (Settings(tls_cert=cert), "tls_key: expected beside tls_cert, got none"),
        (Settings(tls_key=key, tls_client_ca=ca), "tls_cert: expected beside tls_key, got none"),
        (Settings(tls_client_ca=ca), "tls_client_ca: expected tls_cert and tls_key beside it, got none"),
    ]:
        with pytest.raises(DefinitionError, match=said):
            tls_context(settings)
    assert tls_context(Settings()) is None
    assert tls_context(Settings(tls_cert=cert, tls_key=key)) is not None
