"""Where a service is reached: scheme, host and port, its addresses as DNS has them now, its TLS context.

Knows nothing of requests. DynamoDB's DNS answers live five seconds and change with its fleet: addresses are
asked for again for connections that are opened later, never kept for good.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastserve.errors import DefinitionError, shown

ADDRESS_LIFE_S = 5.0
# Addresses of which none answers are looked up again sooner: the name may have moved.
ADDRESS_MIN_LIFE_S = 1.0
DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service's address as its URL has it."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of_url(cls, url: str) -> Endpoint:
        """Read `http[s]://HOST[:PORT]`.

        Raises:
            DefinitionError: the URL has another form.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.path not in {"", "/"}:
            raise DefinitionError(f"endpoint: expected http://HOST:PORT or https://HOST, got {shown(url)}")
        return cls(parts.hostname, port or DEFAULT_PORTS[parts.scheme], parts.scheme == "https")

    @property
    def host_header(self) -> str:
        """The `Host` header, which is signed: the port only where it isn't the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == DEFAULT_PORTS["https" if self.tls else "http"]
        return host if usual else f"{host}:{self.port}"


class Addresses:
    """The endpoint's IP addresses; looked up at most every five seconds, by one look-up at a time.

    When a look-up fails, what the last one gave is used: an address that doesn't answer costs one connect
    timeout, none at all would cost the request.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: list[str] = []
        self._known_until_s = 0.0
        self._looked_up_s = 0.0
        self._turn = 0
        self._failure: OSError | None = None
        self._lookup: asyncio.Task[None] | None = None
        try:
            self._known = [str(ipaddress.ip_address(endpoint.host))]
            self._known_until_s = float("inf")
        except ValueError:
            pass

    async def next(self) -> list[str]:
        """Return all addresses, each time beginning with another one.

        Raises:
            OSError: the name can't be resolved and never was.
        """
        loop = asyncio.get_running_loop()
        if loop.time() >= self._known_until_s:
            if self._lookup is None:
                self._lookup = loop.create_task(self._look_up(loop))
            await asyncio.shield(self._lookup)
        if not self._known:
            raise self._failure or OSError("the name resolves to no address")
        self._turn += 1
        at = self._turn % len(self._known)
        return self._known[at:] + self._known[:at]

    def doubt(self, now_s: float) -> bool:
        """Be told that none of the addresses answered; True if the next ones will be looked up anew."""
        if self._known_until_s == float("inf") or now_s - self._looked_up_s < ADDRESS_MIN_LIFE_S:
            return False
        self._known_until_s = 0.0
        return True

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> None:
        where = self._endpoint.host, self._endpoint.port
        try:
            found = await loop.getaddrinfo(*where, type=socket.SOCK_STREAM)
            self._known = list(dict.fromkeys(str(address[4][0]) for address in found)) or self._known
        except OSError as error:  # kept, since whoever waited for it may have gone
            self._failure = error
        finally:
            self._lookup = None
        self._looked_up_s = loop.time()
        if self._known:
            self._known_until_s = self._looked_up_s + ADDRESS_LIFE_S


class ResumingContext(ssl.SSLContext):
    """A client's TLS context that offers the last connection's session to the next one.

    asyncio and uvloop have no parameter for that, but both make their TLS objects here. A resumed handshake
    saves the certificate's check, most of the CPU of opening a connection.
    """

    _last: ssl.SSLObject | None = None
    _session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Make a TLS object, with the last session that the server has given to one made before."""
        if self._last is not None:
            self._session = self._last.session or self._session
        self._last = super().wrap_bio(
            incoming, outgoing, server_side, server_hostname, session or self._session
        )
        return self._last


def default_tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """Return a context that checks certificate and host name, as `ssl.create_default_context` sets it up.

    ``ca_bundle`` is a file of certificates to trust in place of the system's.

    Raises:
        DefinitionError: the file can't be read.
    """
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_bundle is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_bundle)
    except OSError as error:
        raise DefinitionError(
            f"AWS_CA_BUNDLE: expected a file of certificates, got {shown(ca_bundle)}: {error.strerror}"
        ) from error
    return context
