"""From an exchange to an answer: routes, and the services of one workspace.

Invariants
1. Every exchange is answered exactly once; whatever goes wrong in one is answered to that one alone.
2. Errors leave by `refuse` only, with the status of the `RequestError` or of what the store reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from fastserve.api import api_keys
from fastserve.api.decode import (
    decode_get_features,
    decode_get_features_batch,
    decode_metadata,
    decode_timeout_s,
)
from fastserve.errors import RequestError, shown
from fastserve.server.exchange import Exchange, Meter
from fastserve.server.feast_handler import HEALTH, PATH, FeastAnswer, FeastHandler
from fastserve.server.key_file import KeyFile
from fastserve.server.service_handler import ServiceHandler
from fastserve.server.vector_answer import (
    RETRY_AFTER,
    VectorAnswer,
    WeighedAnswer,
    refuse,
    refuse_unforeseen,
)
from fastserve.serving.admission import Admission
from fastserve.serving.engine import Engine
from fastserve.wire.http1_answer import JSON

V1 = "/api/v1/feature-service/"
V2 = "/api/v2/workspaces/"
INGEST = "/ingest"
OPENAPI = "/openapi.json"
NO_CONTEXTS = ((),)


class Readiness(Protocol):
    """What /readyz asks the worker."""

    @property
    def is_ready(self) -> bool:
        """Whether the worker takes traffic: booted and not draining."""


@dataclass(frozen=True, slots=True)
class ApplicationLimits:
    """Limits of requests: seconds until 504, and rows of a batch."""

    server_timeout_s: float = 2.0
    max_batch_rows: int = 1000


class FeatureApplication:
    """The feature server's HTTP application for one workspace.

    ``now_s`` is a clock of the loop's epoch that goes on during its turns, ``call_later(delay_s, function)``
    its timer. ``ingest`` answers pushes, which the application only routes.
    """

    def __init__(
        self,
        workspace: str,
        engine: Engine,
        readiness: Readiness,
        now_s: Callable[[], float],
        call_later: Callable[..., object],
        limits: ApplicationLimits | None = None,
        ingest: Callable[[Exchange], None] | None = None,
        keys: KeyFile | None = None,
        admission: Admission | None = None,
        feast: FeastHandler | None = None,
    ) -> None:
        self.workspace = workspace
        self.engine = engine
        self.limits = limits or ApplicationLimits()
        self.now_s = now_s
        self._call_later = call_later
        self._keys = keys
        self.admission = admission or Admission()
        self._in_flight = engine.waiting
        engine.on_computing = self.admission.hold
        self._ingest = ingest
        self._readiness = readiness
        self._single = VectorAnswer
        self._batch = WeighedAnswer
        self._handlers: Mapping[str | None, ServiceHandler] = {
            name: ServiceHandler(runtime, engine.transports.of(runtime.plan.stores))
            for name, runtime in engine.services.items()
        }
        self._posts: dict[str, Callable[..., None]] = {
            V1 + "get-features": self._get_features,
            V1 + "get-features-batch": self._get_features_batch,
            V1 + "metadata": self._metadata,
            **({} if ingest is None else {INGEST: self._push}),
        }
        self._gets: dict[str, Callable[[Exchange], None]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }
        self._feast = feast
        if feast is not None:
            self._posts[PATH] = self._get_online_features
            self._gets[HEALTH] = self._health

    def measure(
        self,
        meters: Mapping[str, Meter],
        single: type[VectorAnswer] = VectorAnswer,
        batch: type[WeighedAnswer] = WeighedAnswer,
        feast: type[FeastAnswer] = FeastAnswer,
    ) -> None:
        """Tell these meters, by service, of the answers to come, and let them be of these kinds."""
        self._single = single
        self._batch = batch
        for name, meter in meters.items():
            if name in self._handlers:
                self._handlers[name].meter = meter
        if self._feast is not None:
            self._feast.measure(meters, feast)

    def describe(self, openapi: bytes) -> None:
        """Answer `OPENAPI` with this document, which asks for a key as what it tells of does."""
        self._gets[OPENAPI] = lambda exchange: exchange.respond(200, openapi)

    def __call__(self, exchange: Exchange) -> None:
        """Answer ``exchange``, now or when its rows have come."""
        try:
            post = self._posts.get(exchange.path)
            if self._keys is not None and (exchange.path not in self._gets or exchange.path == OPENAPI):
                scope = api_keys.INGEST if exchange.path == INGEST else api_keys.READ
                self._keys.admit(exchange.authorization, scope, self.workspace)
            if post is not None and exchange.method == "POST":
                post(exchange)
            else:
                self._route(exchange)
        except RequestError as error:
            refuse(exchange, error)
        except Exception as error:  # noqa: BLE001 - answered and logged; the server goes on
            refuse_unforeseen(exchange, error)

    # --- routes -----------------------------------------------------------------------------------------

    def _route(self, exchange: Exchange) -> None:
        path = exchange.path
        get = self._gets.get(path)
        if get is not None:
            self._only(exchange, ("GET", "HEAD"), get)
        elif path in self._posts:
            self._only(exchange, ("POST",), self._posts[path])
        elif path.startswith(V2):
            self._route_v2(exchange)
        else:
            raise unknown_path(exchange)

    def _only(
        self, exchange: Exchange, methods: tuple[str, ...], handle: Callable[..., None], *names: str
    ) -> None:
        if exchange.method in methods:
            handle(exchange, *names)
            return
        message = f"Expected {' or '.join(methods)} for {shown(exchange.path)}, got {shown(exchange.method)}"
        exchange.respond_error(405, message, [(b"Allow", ", ".join(methods).encode())])

    def _route_v2(self, exchange: Exchange) -> None:
        parts = exchange.path[len(V2) :].split("/")
        if len(parts) != 4 or parts[1] != "feature-services" or f"{V1}{parts[3]}" not in self._posts:
            raise unknown_path(exchange)
        workspace, service, action = unquoted(parts[0]), unquoted(parts[2]), parts[3]
        if action == "metadata":
            self._only(exchange, ("GET", "HEAD"), self._metadata_of, workspace, service)
        else:
            self._only(exchange, ("POST",), self._posts[f"{V1}{action}"], workspace, service)

    def _healthz(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"status":"alive"}')

    def _readyz(self, exchange: Exchange) -> None:
        if not self._readiness.is_ready:
            raise RequestError(503, "Not ready: starting or draining")
        exchange.respond(200, b'{"status":"ready"}')

    def _health(self, exchange: Exchange) -> None:
        """Answer as Feast's server does: by the status alone."""
        exchange.respond(200 if self._readiness.is_ready else 503, b"")

    # --- feature services -------------------------------------------------------------------------------

    def _handler(self, workspace: str | None, service: str | None) -> ServiceHandler:
        handler = self._handlers.get(service)
        if handler is not None and (workspace is None or workspace == self.workspace):
            return handler
        if service is None:
            raise RequestError(400, "Missing required field: `featureServiceName`")
        if workspace is not None and workspace != self.workspace:
            raise RequestError(
                404, f"Unknown workspace {shown(workspace)}: this server serves {shown(self.workspace)}"
            )
        raise RequestError(
            404, f"Unknown feature service {shown(service)} in workspace {shown(self.workspace)}"
        )

    def _metadata(self, exchange: Exchange) -> None:
        request = decode_metadata(exchange.body)
        self._metadata_of(exchange, request.workspace, request.service)

    def _metadata_of(self, exchange: Exchange, workspace: str | None, service: str | None) -> None:
        exchange.respond(200, self._handler(workspace, service).metadata_answer)

    def _is_shed(self, exchange: Exchange, scope: str) -> bool:
        """Refuse ``exchange``, unless the limit that was reached isn't that of its key's priority."""
        is_batch = False
        if self._keys is not None:
            is_batch = self._keys.admit(exchange.authorization, scope, self.workspace).is_batch
        refusal = self.admission.refusal(len(self._in_flight), is_batch=is_batch)
        if refusal is None:
            return False
        exchange.respond(refusal.status, refusal.body, JSON, RETRY_AFTER)
        return True

    def _push(self, exchange: Exchange) -> None:
        if len(self._in_flight) >= self.admission.limit and self._is_shed(exchange, api_keys.INGEST):
            return
        if self._ingest is not None:
            self._ingest(exchange)

    def _get_online_features(self, exchange: Exchange) -> None:
        if len(self._in_flight) >= self.admission.limit and self._is_shed(exchange, api_keys.READ):
            return
        if self._feast is not None:
            self._feast.submit(exchange)

    def _get_features(
        self, exchange: Exchange, workspace: str | None = None, service: str | None = None
    ) -> None:
        if len(self._in_flight) >= self.admission.limit and self._is_shed(exchange, api_keys.READ):
            return
        request = decode_get_features(exchange.body)
        if service is None:  # the path's names, where it has any, count
            workspace, service = request.workspace, request.service
        handler = self._handler(workspace, service)
        exchange.meter = handler.meter
        keys, context = request.rows[0]
        texts = [handler.key_texts(keys)]
        takes_context = context or handler.takes_context
        contexts = [handler.context_values(context, request)] if takes_context else NO_CONTEXTS
        timeout_s = self.limits.server_timeout_s
        if exchange.head.request_timeout_ms is not None:
            timeout_s = min(timeout_s, decode_timeout_s(exchange.head.request_timeout_ms))
        answer = self._single(
            exchange, handler, request.options, contexts, self.now_s, timeout_s, batch=False
        )
        self._submit(answer, texts)

    def _get_features_batch(
        self, exchange: Exchange, workspace: str | None = None, service: str | None = None
    ) -> None:
        # Judged before its rows are known, since to know them costs more than a refusal may; they count then.
        if len(self._in_flight) >= self.admission.limit and self._is_shed(exchange, api_keys.READ):
            return
        request = decode_get_features_batch(exchange.body, self.limits.max_batch_rows)
        if service is None:
            workspace, service = request.workspace, request.service
        handler = self._handler(workspace, service)
        exchange.meter = handler.meter
        texts = []
        contexts = []
        for number, (keys, context) in enumerate(request.rows):
            row = f" (request_data[{number}])"
            texts.append(handler.key_texts(keys, row))
            contexts.append(handler.context_values(context, request, row))
        timeout_s = self.limits.server_timeout_s
        if exchange.head.request_timeout_ms is not None:
            timeout_s = min(timeout_s, decode_timeout_s(exchange.head.request_timeout_ms))
        answer = self._batch(exchange, handler, request.options, contexts, self.now_s, timeout_s, batch=True)
        answer.weigh(len(texts), self.admission)
        self._submit(answer, texts)

    def _submit(self, answer: VectorAnswer, texts: list[list[str]]) -> None:
        self.engine.submit(answer, texts, answer.exchange.received_s)
        # The server's own timeout needs no timer: the engine looks at the oldest requests from time to time.
        is_own = answer.budget or answer.timeout_s < self.limits.server_timeout_s
        if is_own and not answer.exchange.is_answered:
            self._call_later(max(0.0, answer.deadline_s - self.now_s()), self.engine.give_up, answer)


def unknown_path(exchange: Exchange) -> RequestError:
    """Return the error for a path that leads nowhere."""
    message = f"Unknown path {shown(exchange.path)} for {shown(exchange.method)}: /openapi.json lists them"
    return RequestError(404, message)


def unquoted(part: str) -> str:
    """Return one path segment with its percent escapes decoded.

    Raises:
        RequestError: an escape that isn't UTF-8.
    """
    if "%" not in part:
        return part
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise RequestError(
            400, f"Expected UTF-8 behind the percent signs of the path, got {shown(part)}"
        ) from None
