"""Try a query: a request that came to the admin listener goes to the application that answers clients.

Nothing of it is asked of the network: the exchange is answered in this worker, by the same code and under the
same limits. Who may ask:

- with API keys, who shows one: the request's Authorization header is judged as on the clients' port;
- without, whoever is on this machine, and so only where the listener's address is a loopback one;
- nobody, where a client certificate is what the clients' port asks for, since this listener sees none.

Invariants
1. No feature value leaves by the admin listener that its reader couldn't ask the clients' port for.
2. A page of another origin can't ask: the content type that is insisted on needs a preflight, which is
   refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastserve.config import Settings
from fastserve.errors import RequestError, shown
from fastserve.server.exchange import Application, Exchange, Headers
from fastserve.wire.http1_answer import JSON

PATH = "/console/try"
GET_FEATURES = "/api/v1/feature-service/get-features"
ONLY_LOCAL = (
    "Off: others than this machine's users may reach the admin listener, and the server asks nobody for an "
    "API key. It is on with API keys, or where the admin listener's address is a loopback one."
)
ONLY_CERTIFIED = (
    "Off: clients show the server a certificate, which the admin listener can't see. It is on with API keys."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may try a query: nobody where there is a ``reason``, else whoever shows a key if one is needed."""

    reason: str
    needs_key: bool
    serving_url: str

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask."""
        return not self.reason


def policy_of(settings: Settings) -> Policy:
    """Return who may try a query on a server with these settings."""
    needs_key = settings.api_keys is not None
    reason = ""
    if not needs_key:
        if settings.tls_client_ca is not None:
            reason = ONLY_CERTIFIED
        elif not is_loopback(settings.admin_host):
            reason = ONLY_LOCAL
    return Policy(reason, needs_key, _serving_url(settings))


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _serving_url(settings: Settings) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - read, not bound
    return f"{scheme}://[{host}]:{settings.port}" if ":" in host else f"{scheme}://{host}:{settings.port}"


class Trial:
    """Answers `PATH`; ``headers`` go with every answer."""

    def __init__(self, application: Application, policy: Policy, headers: Headers) -> None:
        self._application = application
        self._policy = policy
        self._headers = tuple(headers)

    def __call__(self, exchange: Exchange) -> None:
        """Hand ``exchange`` on.

        Raises:
            RequestError: nobody may ask, or it isn't JSON.
        """
        if not self._policy.is_open:
            raise RequestError(403, self._policy.reason)
        kind = (exchange.content_type or b"").partition(b";")[0].strip().lower()
        if kind != JSON:
            raise RequestError(400, f"Expected Content-Type application/json, got {shown(kind)}")
        head = replace(exchange.head, path=GET_FEATURES, query="", accept=None)
        handed = Exchange(_Relay(exchange, self._headers), head, exchange.body, exchange.received_s)
        self._application(handed)


class _Relay:
    """Gives an answer to the exchange that came in."""

    __slots__ = ("_exchange", "_headers")

    def __init__(self, exchange: Exchange, headers: Headers) -> None:
        self._exchange = exchange
        self._headers = tuple(headers)

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        """Answer the one that came in, which counts as a client's does."""
        self._exchange.meter = exchange.meter
        self._exchange.respond(status, body, content_type, (*headers, *self._headers))

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        """Answer the one that came in."""
        self.send_answer(exchange, 200, b"".join(parts), JSON, ())
