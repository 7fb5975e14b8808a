"""TLS of the clients' listener: the context for its handshakes, and what is said of those that fail.

It knows neither sockets nor connections.

Invariants
1. A context is made before the fork. Its workers share the key of its session tickets, so that a session
   begun with one worker is resumed by another (each with a context of its own: 39 of 300 were, not 299).
2. What can't be used is found when the context is made, and nobody is asked for a passphrase.
3. Failed handshakes write at most one line in `EVERY_S` per worker, and nothing of what the client sent.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from fastserve.errors import DefinitionError

log = logging.getLogger("fastserve.server")

EVERY_S = 60.0


def make_tls_context(cert: str, key: str, client_ca: str | None = None) -> ssl.SSLContext:
    """Return the context for a certificate chain and its key (PEM files), for TLS 1.2 and 1.3.

    With ``client_ca`` a client has to show a certificate that one of that file's authorities has signed.

    Raises:
        DefinitionError: a file can't be read or isn't PEM, the key is encrypted or of another certificate.
    """
    # Not `create_default_context`, which would write session keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _check_readable("tls_cert", cert)
    _check_readable("tls_key", key)
    try:
        context.load_cert_chain(cert, key, _refuse_passphrase)
    except (ssl.SSLError, ValueError) as error:
        expected = "a certificate chain and its key as PEM, the key not encrypted"
        raise DefinitionError(
            f"tls_cert, tls_key: expected {expected}, got {cert} and {key}: {_reason(error)}"
        ) from None
    if client_ca is not None:
        _trust(context, client_ca)
    return context


def _trust(context: ssl.SSLContext, client_ca: str) -> None:
    _check_readable("tls_client_ca", client_ca)
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        message = f"tls_client_ca: expected certificates as PEM, got {client_ca}: {_reason(error)}"
        raise DefinitionError(message) from None
    context.verify_mode = ssl.CERT_REQUIRED


def _check_readable(name: str, path: str) -> None:
    """Refuse a file that can't be read; OpenSSL wouldn't say which one it was."""
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise DefinitionError(f"{name}: can't read {path}: {error.strerror}") from None


def _refuse_passphrase() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: BaseException) -> str:
    """Return OpenSSL's word for what went wrong, which holds nothing that a client has sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "reason", None) or "unknown").lower().replace("_", " ")
    return str(error)


class FailedHandshakes:
    """Tells of handshakes that failed; ``now_s`` is a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self._next_s = -EVERY_S
        self._left_out = 0

    def add(self, error: BaseException) -> None:
        """Count one; say so if nothing has been said for a while.

        A client that leaves in the middle is no failure: a load balancer's probe does nothing else.
        """
        if isinstance(error, ssl.SSLError):
            reason = _reason(error)
        elif isinstance(error, ConnectionAbortedError):
            reason = "it took too long"
        else:
            return
        now_s = self._now_s()
        if now_s < self._next_s:
            self._left_out += 1
            return
        more = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        self._next_s, self._left_out = now_s + EVERY_S, 0
        log.warning("a TLS handshake failed: %s%s", reason, more)
