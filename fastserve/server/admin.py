"""What the admin listener answers: probes, and pages that others add to its table of routes.

It knows nothing of features, metrics or clients, and asks nobody for a key: who may see it is decided by the
address that it listens on.

Invariants
1. Every exchange is answered exactly once; whatever goes wrong in one is answered to that one alone.
2. Methods and paths that lead nowhere are told as the feature server tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from fastserve.errors import InvariantError, RequestError, shown
from fastserve.server.exchange import Exchange
from fastserve.server.vector_answer import refuse, refuse_unforeseen

Page = Callable[[Exchange], None]
"""Answers an exchange, now or later."""

READ = ("GET", "HEAD")


class Readiness(Protocol):
    """What /readyz asks the worker."""

    @property
    def is_ready(self) -> bool:
        """Whether the server takes traffic: booted and not draining."""


class AdminApplication:
    """The admin listener's HTTP application."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._pages: dict[str, tuple[Page, Collection[str]]] = {}
        self.add("/healthz", self._healthz)
        self.add("/readyz", self._readyz)

    def add(self, path: str, page: Page, methods: Collection[str] = READ) -> None:
        """Answer ``path`` by ``page``; a path that ends in `/*` stands for all that begin with the rest.

        An exact path wins over such a one, and a longer one over a shorter.

        Raises:
            InvariantError: the path has a page.
        """
        if path in self._pages:
            raise InvariantError(f"expected one page for {path}, got two")
        self._pages[path] = (page, tuple(methods))

    def __call__(self, exchange: Exchange) -> None:
        """Answer ``exchange``."""
        try:
            self._route(exchange)
        except RequestError as error:
            refuse(exchange, error)
        except Exception as error:  # noqa: BLE001 - answered and logged; the server goes on
            refuse_unforeseen(exchange, error)

    def _route(self, exchange: Exchange) -> None:
        found = self._found(exchange.path)
        if found is None:
            message = f"Unknown path {shown(exchange.path)} for {shown(exchange.method)}"
            raise RequestError(404, message)
        page, methods = found
        if exchange.method in methods:
            page(exchange)
            return
        expected = " or ".join(methods)
        message = f"Expected {expected} for {shown(exchange.path)}, got {shown(exchange.method)}"
        exchange.respond_error(405, message, [(b"Allow", ", ".join(methods).encode())])

    def _found(self, path: str) -> tuple[Page, Collection[str]] | None:
        found = self._pages.get(path)
        while found is None and path:
            path = path.rpartition("/")[0]
            found = self._pages.get(f"{path}/*")
        return found

    def _healthz(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"status":"alive"}')

    def _readyz(self, exchange: Exchange) -> None:
        if not self._readiness.is_ready:
            raise RequestError(503, "Not ready: starting or draining")
        exchange.respond(200, b'{"status":"ready"}')
