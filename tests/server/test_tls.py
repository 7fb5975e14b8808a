"""What a context is made of, what it refuses, and how little is said of failed handshakes."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.server.connections import Connections
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import HttpProtocol
from fastserve.server.tls import EVERY_S, FailedHandshakes, make_tls_context
from tests.support.certificates import Authority
from tests.support.http_connection import FakeTransport, answer_body


def test_a_context_speaks_nothing_older_than_tls_1_2(tmp_path: Path) -> None:
    made = Authority(tmp_path).issue("server")
    context = make_tls_context(str(made.cert), str(made.key))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode is ssl.CERT_NONE


def test_authorities_make_a_clients_certificate_required(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    made = authority.issue("server")
    context = make_tls_context(str(made.cert), str(made.key), str(authority.cert))
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_files_that_can_t_be_used_are_refused_by_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, other = authority.issue("server"), authority.issue("other")
    absent = str(tmp_path / "absent.pem")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    cert, key = str(server.cert), str(server.key)
    for arguments, said in [
        ((absent, key), "^tls_cert: can't read .*absent.pem: No such file"),
        ((cert, absent), "^tls_key: can't read"),
        ((str(text), key), "^tls_cert, tls_key: expected .* got "),
        ((cert, str(text)), "^tls_cert, tls_key: expected .* got "),
        ((cert, str(other.key)), "key values mismatch"),
        ((cert, str(authority.encrypted(server))), "the key is encrypted"),
        ((cert, key, absent), "^tls_client_ca: can't read"),
        ((cert, key, str(text)), "^tls_client_ca: expected certificates as PEM"),
    ]:
        with pytest.raises(DefinitionError, match=said):
            make_tls_context(*arguments)


class TlsTransport(FakeTransport):
    """One whose half can't be closed."""

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError


def shaken(handshake_s: float) -> tuple[HttpProtocol, TlsTransport, Connections]:
    """Return a protocol whose handshake took so long, out of 10 seconds for a head."""
    shared = Connections(answer_body, ServerOptions(header_timeout_s=10.0), 100.0, 0)
    protocol = HttpProtocol(shared)
    shared.on_tick(100.0 + handshake_s, 0)
    transport = TlsTransport()
    protocol.connection_made(transport)
    return protocol, transport, shared


def test_the_time_of_a_handshake_is_missing_from_that_of_the_first_head() -> None:
    protocol, transport, shared = shaken(handshake_s=7.0)
    shared.on_tick(150.0, 0)  # idle for a while, which is its right
    protocol.data_received(b"GET / HTTP/1.1\r\n")
    shared.on_tick(152.9, 0)
    assert transport.writes == []
    shared.on_tick(153.1, 0)
    assert transport.writes[0].startswith(b"HTTP/1.1 408 ")
    assert transport.is_closed


def test_a_connection_that_ends_with_its_answer_is_closed_since_it_has_no_halves() -> None:
    protocol, transport, _ = shaken(handshake_s=0.0)
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert transport.writes[0].startswith(b"HTTP/1.1 200 ")
    assert transport.is_closed
    assert not transport.is_aborted


def test_a_client_that_ends_in_the_middle_is_answered_and_its_connection_not_kept() -> None:
    protocol, transport, _ = shaken(handshake_s=0.0)
    protocol.data_received(b"GET / HTTP")
    assert protocol.eof_received() is False
    assert transport.writes[0].startswith(b"HTTP/1.1 400 ")


def test_of_many_failed_handshakes_one_line_is_written(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    failed = FailedHandshakes(lambda: now_s)
    with caplog.at_level(logging.INFO, "fastserve.server"):
        for _ in range(100):
            failed.add(ssl.SSLError(1, "a client's own words"))
            failed.add(ConnectionResetError())
        now_s = EVERY_S
        failed.add(ConnectionAbortedError())
    assert [record.getMessage() for record in caplog.records] == [
        "a TLS handshake failed: unknown",
        "a TLS handshake failed: it took too long (99 more since the last such line)",
    ]
