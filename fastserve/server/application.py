"""From an exchange to an answer: routes, the services of one workspace, and what an answer is put together
from.

Invariants
1. Every exchange is answered exactly once; whatever goes wrong in one is answered to that one alone.
2. Errors leave by `_refuse` only, with the status of the `RequestError` or of what the store reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fastserve.api.decode import (
    INCLUDE_SLO_INFO,
    PER_FEATURE,
    FeaturesRequest,
    decode_get_features,
    decode_get_features_batch,
    decode_metadata,
)
from fastserve.api.encode import FeaturesEncoder
from fastserve.api.metadata import (
    SIZE_EXCEEDED,
    TIME_OUT,
    UNKNOWN,
    MetadataEncoder,
    RowFacts,
    Timing,
    service_metadata,
    slo_part,
)
from fastserve.api.values import key_text
from fastserve.errors import RequestError, StoreError, shown
from fastserve.plan.service import MAX_STORE_BYTES, ServicePlan
from fastserve.server.exchange import Exchange
from fastserve.serving.engine import Engine, ServiceRuntime, VectorRequest
from fastserve.serving.transport import RowTransport
from fastserve.serving.columns import Columns

LOGGER = logging.getLogger("fastserve")

V1 = "/api/v1/feature-service/"
V2 = "/api/v2/workspaces/"


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


class ServiceHandler:
    """What answers requests for one service: key checks, encoders, static texts."""

    __slots__ = (
        "encoder",
        "key_count",
        "keys",
        "may_be_large",
        "metadata",
        "metadata_answer",
        "plan",
        "runtime",
        "transport",
    )

    def __init__(self, runtime: ServiceRuntime, transport: RowTransport) -> None:
        plan: ServicePlan = runtime.plan
        self.plan = plan
        self.runtime = runtime
        self.transport = transport
        self.keys = [(field.name, key_text(field)) for field in plan.join_keys]
        self.key_count = len(self.keys)
        self.encoder = FeaturesEncoder(plan)
        self.metadata = MetadataEncoder(plan)
        self.metadata_answer = service_metadata(plan)
        # Without variable-width columns every row has its static length, and most services can't come near
        # the limit.
        self.may_be_large = plan.row_bytes > MAX_STORE_BYTES or any(
            p.view.layout.json_columns or not p.view.packed for p in plan.places
        )

    def key_texts(self, join_keys: dict[str, Any], row: str = "") -> list[str]:
        """Check one row's join keys and return their key texts.

        Raises:
            RequestError: one is missing, unknown or of the wrong type.
        """
        try:
            texts = [text(join_keys[name]) for name, text in self.keys]
        except KeyError as error:
            raise RequestError(400, f"Missing required join key: `{error.args[0]}`{row}") from None
        if len(join_keys) != self.key_count:
            known = [name for name, _ in self.keys]
            extra = next(name for name in join_keys if name not in known)
            raise RequestError(
                400,
                f"Unknown join key{row}: expected {', '.join(f'`{name}`' for name in known)}, got {shown(extra)}",
            )
        return texts

    def check_context(self, context: dict[str, Any], row: str = "") -> None:
        """Refuse request context that no on-demand view takes.

        Raises:
            RequestError: there is any.
        """
        if context:
            raise RequestError(
                400, f"Unknown request context field{row}: expected none, got {shown(next(iter(context)))}"
            )

    def store_bytes(self, rows: list[Any]) -> int:
        """Return how many bytes the rows of one vector take in the store."""
        unit = self.transport.bytes_per_unit
        return int(sum(len(row) * unit for row in rows if row is not None and not isinstance(row, dict)))


class VectorAnswer:
    """One get-features or get-features-batch on its way: takes columns in, puts the answer together."""

    __slots__ = (
        "application",
        "batch",
        "exchange",
        "facts",
        "features",
        "handler",
        "request",
        "sizes",
        "vectors",
    )

    def __init__(
        self,
        application: FeatureApplication,
        exchange: Exchange,
        handler: ServiceHandler,
        request: FeaturesRequest,
        *,
        batch: bool,
    ) -> None:
        self.application = application
        self.exchange = exchange
        self.handler = handler
        self.request = request
        self.batch = batch
        self.features: list[bytes] = []
        self.facts: list[RowFacts] = []
        self.sizes: list[int] = []
        self.vectors: VectorRequest

    def on_timeout(self) -> None:
        """Answer that the server's timeout has passed."""
        timeout_s = self.application.limits.server_timeout_s
        self.exchange.respond_error(
            504, f"The store did not answer within the server timeout of {timeout_s:g} s"
        )

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the next lines; with the last one the answer goes out."""
        try:
            if self._plain(columns):
                self.exchange.respond(
                    200, b'{"result":{"features":' + self.handler.encoder.encode(columns, first) + b"}}"
                )
                return
            self._take(columns, first, last)
            if len(self.features) == len(self.request.rows):
                self.exchange.respond(200, self._body())
        except RequestError as error:
            if not self.exchange.is_answered:
                self.exchange.respond_error(error.status, error.message)
        except Exception:
            LOGGER.exception("answering a request for service %s failed", self.handler.plan.name)
            if not self.exchange.is_answered:
                self.exchange.respond_error(500, "Internal error; the server's log has the details")

    def _plain(self, columns: Columns) -> bool:
        """Whether this is one vector without metadata of which every row came."""
        if (
            self.batch
            or self.request.metadata
            or columns.report.unreadable
            or self.handler.may_be_large
            or self.vectors.budget
        ):
            return False
        for read in self.vectors.reads:
            if read.error is not None:
                return False
        return True

    def _take(self, columns: Columns, first: int, last: int) -> None:
        offset = len(self.features)
        lacking = self._lacking(columns, first, offset)
        effective = columns.effective_ns[first:last].tolist()
        for number in range(last - first):
            self._check_size(offset + number)
            self.features.append(self.handler.encoder.encode(columns, first + number))
            self.facts.append(RowFacts(effective[number], lacking.get(offset + number, {})))

    def _lacking(self, columns: Columns, first: int, offset: int) -> dict[int, dict[int, bytes]]:
        """Return the statuses of places without rows, by line of the request; refuse the request unless
        partial results are welcome.
        """
        found: dict[int, dict[int, bytes]] = {}
        for (line, place), read in self.vectors.places_without_rows().items():
            if read.error is not None and not self.request.allow_partial:
                raise store_refusal(read.error)
            found.setdefault(line, {})[place] = UNKNOWN if read.error is not None else TIME_OUT
        for (line, place), reason in columns.report.unreadable.items():
            own = line - first + offset
            if not offset <= own < len(self.request.rows) or line < first:
                continue
            if not self.request.allow_partial:
                view = self.handler.plan.places[place].view
                raise RequestError(
                    503, f"A row of view `{view.name}` in table {view.table} can't be read: {reason}"
                )
            found.setdefault(own, {})[place] = UNKNOWN
        return found

    def _check_size(self, line: int) -> None:
        size = self.handler.store_bytes(self.handler.runtime.rows(self.vectors.reads, line))
        self.sizes.append(size)
        if size > MAX_STORE_BYTES and not self.request.allow_partial:
            raise RequestError(
                400, f"{SIZE_EXCEEDED}: expected at most {MAX_STORE_BYTES} bytes from the store, got {size}"
            )

    def _body(self) -> bytes:
        metadata = self._metadata()
        if self.batch:
            rows = b",".join([b'{"features":' + features + b"}" for features in self.features])
            return b'{"result":[' + rows + b"]" + metadata + b"}"
        return b'{"result":{"features":' + self.features[0] + b"}" + metadata + b"}"

    def _metadata(self) -> bytes:
        flags = self.request.metadata
        parts = []
        if flags & PER_FEATURE:
            parts.append(
                b'"features":'
                + self.handler.metadata.features(flags & PER_FEATURE, self.facts, batch=self.batch)
            )
        if flags & INCLUDE_SLO_INFO:
            now_s = self.application.now_s()
            timing = Timing(now_s - self.exchange.received_s, now_s - self.vectors.started_s, self.sizes)
            parts.append(slo_part(timing, batch=self.batch))
        return b',"metadata":{' + b",".join(parts) + b"}" if parts else b""


def store_refusal(error: StoreError) -> RequestError:
    """Return what a caller is told of a failed read."""
    return RequestError(429 if error.throttled else 503, f"The online store failed: {error.message}")


class FeatureApplication:
    """The feature server's HTTP application for one workspace.

    ``now_s`` is the loop's clock, ``call_later(delay_s, function)`` its timer.
    """

    def __init__(
        self,
        workspace: str,
        engine: Engine,
        transport: RowTransport,
        readiness: Readiness,
        now_s: Callable[[], float],
        call_later: Callable[..., object],
        limits: ApplicationLimits | None = None,
    ) -> None:
        self.workspace = workspace
        self.engine = engine
        self.limits = limits or ApplicationLimits()
        self.now_s = now_s
        self._call_later = call_later
        self._readiness = readiness
        self._handlers = {
            name: ServiceHandler(runtime, transport) for name, runtime in engine.services.items()
        }
        self._posts: dict[str, Callable[..., None]] = {
            V1 + "get-features": self._get_features,
            V1 + "get-features-batch": self._get_features_batch,
            V1 + "metadata": self._metadata,
        }
        self._gets: dict[str, Callable[[Exchange], None]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    def __call__(self, exchange: Exchange) -> None:
        """Answer ``exchange``, now or when its rows have come."""
        try:
            post = self._posts.get(exchange.path)
            if post is not None and exchange.method == "POST":
                post(exchange)
            else:
                self._route(exchange)
        except RequestError as error:
            exchange.respond_error(error.status, error.message)
        except Exception:
            LOGGER.exception("a request to %s failed", exchange.path[:64])
            exchange.respond_error(500, "Internal error; the server's log has the details")

    # --- routes ---------------------------------------------------------------------------------------

    def _route(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        get = self._gets.get(path)
        if get is not None:
            self._only(exchange, ("GET", "HEAD"), get)
        elif path in self._posts:
            self._only(exchange, ("POST",), self._posts[path])
        elif path.startswith(V2):
            self._route_v2(exchange)
        else:
            raise RequestError(404, f"Unknown path {shown(path)} for {method}")

    def _only(
        self, exchange: Exchange, methods: tuple[str, ...], handle: Callable[..., None], *names: str
    ) -> None:
        if exchange.method in methods:
            handle(exchange, *names)
        else:
            message = f"Expected {' or '.join(methods)} for {shown(exchange.path)}, got {exchange.method}"
            exchange.respond_error(405, message, [(b"Allow", ", ".join(methods).encode())])

    def _route_v2(self, exchange: Exchange) -> None:
        parts = exchange.path[len(V2) :].split("/")
        known = len(parts) == 4 and parts[1] == "feature-services" and f"{V1}{parts[3]}" in self._posts
        if not known:
            raise RequestError(404, f"Unknown path {shown(exchange.path)} for {exchange.method}")
        workspace, _, service, action = (unquoted(part) for part in parts)
        if action == "metadata":
            self._only(exchange, ("GET", "HEAD"), self._metadata_of, workspace, service)
        else:
            self._only(exchange, ("POST",), self._posts[f"{V1}{action}"], workspace, service)

    def _healthz(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"status":"alive"}')

    def _readyz(self, exchange: Exchange) -> None:
        if self._readiness.is_ready:
            exchange.respond(200, b'{"status":"ready"}')
        else:
            exchange.respond_error(503, "Not ready: starting or draining")

    # --- feature services -------------------------------------------------------------------------------

    def _handler(self, workspace: str | None, service: str | None) -> ServiceHandler:
        handler = self._handlers.get(service or "")
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

    def _get_features(
        self, exchange: Exchange, workspace: str | None = None, service: str | None = None
    ) -> None:
        request = decode_get_features(exchange.body)
        handler = self._handler(workspace or request.workspace, service or request.service)
        keys, context = request.rows[0]
        if context and not request.ignore_extra_context:
            handler.check_context(context)
        self._submit(VectorAnswer(self, exchange, handler, request, batch=False), [handler.key_texts(keys)])

    def _get_features_batch(
        self, exchange: Exchange, workspace: str | None = None, service: str | None = None
    ) -> None:
        request = decode_get_features_batch(exchange.body, self.limits.max_batch_rows)
        handler = self._handler(workspace or request.workspace, service or request.service)
        texts = []
        for number, (keys, context) in enumerate(request.rows):
            row = f" (request_data[{number}])"
            if not request.ignore_extra_context:
                handler.check_context(context, row)
            texts.append(handler.key_texts(keys, row))
        self._submit(VectorAnswer(self, exchange, handler, request, batch=True), texts)

    def _submit(self, answer: VectorAnswer, texts: list[list[str]]) -> None:
        received_s = answer.exchange.received_s
        timeout_s = self.limits.server_timeout_s
        budget_ms = answer.request.latency_budget_ms
        budget = budget_ms is not None and budget_ms / 1000 < timeout_s
        if budget_ms is not None and budget:
            timeout_s = budget_ms / 1000
        vectors = VectorRequest(
            answer.handler.runtime,
            answer,
            received_s + timeout_s,
            zero_counts=answer.request.zero_counts,
            budget=budget,
        )
        answer.vectors = vectors
        self.engine.submit(vectors, texts, received_s)
        if budget and not answer.exchange.is_answered:
            self._call_later(max(0.0, vectors.deadline_s - self.now_s()), self.engine.give_up, vectors)


def unquoted(part: str) -> str:
    """Return one path segment with its percent escapes decoded.

    Raises:
        RequestError: an escape that isn't UTF-8.
    """
    if "%" not in part:
        return part
    from urllib.parse import unquote

    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise RequestError(
            400, f"Expected UTF-8 behind the percent signs of the path, got {shown(part)}"
        ) from None
