"""What a context is made of, what it refuses, and how little is said of failed handshakes."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.server.tls import EVERY_S, FailedHandshakes, make_tls_context
from tests.support.certificates import Authority


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
