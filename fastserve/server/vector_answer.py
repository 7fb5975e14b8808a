"""The answer of one get-features or get-features-batch, put together as its columns come.

Invariants
1. An exchange is answered once, whatever fails on the way.
2. A value that may not be known is told: refused, or null with its status when partial results are welcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastserve.api.decode import INCLUDE_SLO_INFO, PER_FEATURE, RequestOptions
from fastserve.api.metadata import SIZE_EXCEEDED, TIME_OUT, UNKNOWN, RowFacts, Timing, slo_part
from fastserve.api.pack import packed_answer
from fastserve.compiled import mypyc_attr
from fastserve.errors import RequestError, StoreError
from fastserve.plan.service import MAX_STORE_BYTES
from fastserve.server.exchange import Exchange
from fastserve.server.service_handler import ServiceHandler
from fastserve.serving.admission import Admission
from fastserve.serving.columns import Columns
from fastserve.serving.requests import VectorRequest
from fastserve.wire.accept import MSGPACK

LOGGER = logging.getLogger("fastserve")
LATE_S = 0.002
"""How exactly a loop's timers keep their time, twice; the store's client tries nothing in so short a time."""


@dataclass(slots=True)
class _Taken:
    """What has come of an answer that is more than one vector's values."""

    ready_s: float
    features: list[bytes] = field(default_factory=list)
    facts: list[RowFacts] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    on_demand_s: float = 0.0


@mypyc_attr(allow_interpreted_subclasses=True)
class VectorAnswer(VectorRequest):
    """One request for vectors on its way, and its own owner: takes columns in, puts the answer together.

    ``timeout_s`` is the server's, or the one that the request's header names where that is shorter. The
    caller's latency budget, where it is shorter still, sets the deadline.
    """

    __slots__ = (
        "batch",
        "exchange",
        "handler",
        "is_packed",
        "is_simple",
        "now_s",
        "options",
        "taken",
        "timeout_s",
    )

    def __init__(
        self,
        exchange: Exchange,
        handler: ServiceHandler,
        options: RequestOptions,
        contexts: Sequence[Sequence[Any]],
        now_s: Callable[[], float],
        timeout_s: float,
        *,
        batch: bool,
    ) -> None:
        budget_ms = options.latency_budget_ms
        budget = budget_ms is not None and budget_ms / 1000 < timeout_s
        wait_s = budget_ms / 1000 if budget_ms is not None and budget else timeout_s
        super().__init__(
            handler.runtime,
            self,
            exchange.received_s + wait_s,
            options.zero_counts,
            budget,
            options.allow_partial,
            contexts,
        )
        self.exchange = exchange
        self.handler = handler
        self.options = options
        self.now_s = now_s
        self.timeout_s = timeout_s
        self.batch = batch
        self.is_packed = exchange.head.asks_for_msgpack
        self.is_simple = not (batch or options.metadata)
        self.taken: _Taken | None = None

    @property
    def reads_cache(self) -> bool:
        """Whether rows out of the worker's cache are welcome."""
        return self.options.reads_cache

    @property
    def writes_cache(self) -> bool:
        """Whether what is read for it may be kept."""
        return self.options.writes_cache

    def on_timeout(self) -> None:
        """Answer that the timeout has passed."""
        refuse(self.exchange, self._timed_out())

    def _timed_out(self) -> RequestError:
        whose = "server" if self.exchange.head.request_timeout_ms is None else "request's"
        return RequestError(504, f"No answer within the {whose} timeout of {self.timeout_s:g} s")

    def _is_late(self, error: StoreError) -> bool:
        """Whether a read failed because the request's time was over.

        The store's client and the request wait for the same moment, and either may be the first to notice.
        """
        return error.timed_out and self.now_s() >= self.deadline_s - LATE_S

    def on_failure(self, error: Exception) -> None:
        """Answer that something went wrong which nobody foresaw."""
        refuse_unforeseen(self.exchange, error)

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the next lines; with the last one the answer goes out."""
        if self.exchange.is_answered:
            return  # refused when an earlier part came
        try:
            # One vector without metadata of which no row failed: values are all there is to it. Rows that
            # haven't come by the latency budget are null, as in `_take`.
            if self.is_simple and not columns.report.unreadable and not self.has_failed():
                if self.handler.may_be_large and not self.handler.is_surely_small(self.reads):
                    self._checked_size(0)
                if self.is_packed:
                    self._respond_packed([self.handler.pack(columns, first)], b"")
                    return
                features = self.handler.encode(columns, first)
                self.exchange.respond_json(b'{"result":{"features":', features, b"}}")
                return
            taken = self._take(columns, first, last)
            if len(taken.features) < self.lines:
                return
            if self.is_packed:
                self._respond_packed(taken.features, self._metadata(taken))
            else:
                self.exchange.respond(200, self._body(taken))
        except RequestError as error:
            refuse(self.exchange, error)
        except Exception as error:  # noqa: BLE001 - answered and logged; requests beside it go on
            refuse_unforeseen(self.exchange, error)

    def _respond_packed(self, vectors: Sequence[bytes], metadata: bytes) -> None:
        self.exchange.respond(200, packed_answer(vectors, metadata, batch=self.batch), MSGPACK)

    def _take(self, columns: Columns, first: int, last: int) -> _Taken:
        taken = self.taken
        if taken is None:
            taken = self.taken = _Taken(self.now_s())
        offset = len(taken.features)
        lacking = self._lacking(columns, first, last, offset)
        cached = self.cached(offset, offset + last - first) if self.handler.may_be_cached else {}
        effective = columns.effective_ns[first:last].tolist()
        late = self._computed(columns, first, last, taken)
        encode = self.handler.pack if self.is_packed else self.handler.encode
        for number in range(last - first):
            taken.sizes.append(self._checked_size(offset + number))
            taken.features.append(encode(columns, first + number))
            facts = RowFacts(
                effective[number],
                lacking.get(offset + number, {}),
                late.get(first + number, ()),
                cached.get(offset + number, ()),
            )
            taken.facts.append(facts)
        return taken

    def _computed(
        self, columns: Columns, first: int, last: int, taken: _Taken
    ) -> Mapping[int, Collection[int]]:
        """Return by line of the columns the on-demand views that came late.

        Raises:
            RequestError: a view has failed; of a batch the row is named.
        """
        computed = columns.computed
        if computed is None:
            return {}
        taken.on_demand_s += computed.wait_s
        for line, error in sorted(computed.errors.items()):
            if first <= line < last:
                row = f" (request_data[{len(taken.features) + line - first}])" if self.batch else ""
                raise RequestError(error.status, f"{error.message}{row}")
        return computed.late

    def _lacking(self, columns: Columns, first: int, last: int, offset: int) -> dict[int, dict[int, bytes]]:
        """Return the statuses of places without rows, by line of the request.

        Raises:
            RequestError: a row failed, and partial results aren't welcome.
        """
        found: dict[int, dict[int, bytes]] = {}
        for line, places in self.lacking(offset, offset + last - first).items():
            for place, read in places.items():
                found.setdefault(line, {})[place] = self._status_without(read.error)
        for (line, place), reason in columns.report.unreadable.items():
            if first <= line < last:
                if not self.partial:
                    raise self._unreadable(place, reason)
                found.setdefault(line - first + offset, {})[place] = UNKNOWN
        return found

    def _status_without(self, error: StoreError | None) -> bytes:
        """Return the status of a place whose read has not come, or failed with ``error``.

        Raises:
            RequestError: the timeout is over, or partial results aren't welcome.
        """
        if error is None:
            return TIME_OUT
        if self._is_late(error):
            if self.budget:
                return TIME_OUT
            raise self._timed_out()
        if not self.partial:
            raise store_refusal(error)
        return UNKNOWN

    def _unreadable(self, place: int, reason: str) -> RequestError:
        view = self.handler.plan.places[place].view
        return RequestError(503, f"A row of view `{view.name}` in table {view.table} can't be read: {reason}")

    def _checked_size(self, line: int) -> int:
        """Return how many bytes a line took from the store.

        Raises:
            RequestError: too many, and partial results aren't welcome.
        """
        size = self.handler.store_bytes(self.runtime.rows(self.reads, line))
        if size > MAX_STORE_BYTES and not self.partial:
            raise RequestError(
                400, f"{SIZE_EXCEEDED}: expected at most {MAX_STORE_BYTES} bytes from the store, got {size}"
            )
        return size

    def _body(self, taken: _Taken) -> bytes:
        metadata = self._metadata(taken)
        if metadata:
            metadata = b',"metadata":' + metadata
        if self.batch:
            rows = b",".join([b'{"features":' + features + b"}" for features in taken.features])
            return b'{"result":[' + rows + b"]" + metadata + b"}"
        return b'{"result":{"features":' + taken.features[0] + b"}" + metadata + b"}"

    def _metadata(self, taken: _Taken) -> bytes:
        """Return the JSON of what was asked for beside values; nothing for nothing."""
        flags = self.options.metadata
        parts = []
        if flags & PER_FEATURE:
            features = self.handler.metadata.features(flags & PER_FEATURE, taken.facts, batch=self.batch)
            parts.append(b'"features":' + features)
        if flags & INCLUDE_SLO_INFO:
            server_s = self.now_s() - self.exchange.received_s
            reads_s = taken.ready_s - self.started_s - taken.on_demand_s if self.handler.plan.reads else 0.0
            timing = Timing(server_s, max(0.0, reads_s), taken.sizes, taken.on_demand_s)
            parts.append(slo_part(timing, batch=self.batch))
        return b"{" + b",".join(parts) + b"}" if parts else b""


@mypyc_attr(allow_interpreted_subclasses=True)
class WeighedAnswer(VectorAnswer):
    """The answer of a batch, whose rows count for as long as it takes."""

    __slots__ = ("_admission", "_weight")

    def weigh(self, rows: int, admission: Admission) -> None:
        """Count ``rows`` from now until the release; the request itself is counted as one."""
        self._admission = admission
        self._weight = rows - 1
        admission.hold(self._weight)

    def release(self) -> None:
        """Let go of rows and owner; the rows don't count any more."""
        super().release()
        self._admission.hold(-self._weight)


def store_refusal(error: StoreError) -> RequestError:
    """Return what a caller is told of a failed read."""
    return RequestError(429 if error.throttled else 503, f"The online store failed: {error.message}")


# A client that comes back before load or store have changed only adds to it; one value, known beforehand.
RETRY_AFTER = ((b"Retry-After", b"1"),)
RETRIED = frozenset({429, 503})


def refuse(exchange: Exchange, error: RequestError) -> None:
    """Answer with an error, unless an answer has gone out."""
    if not exchange.is_answered:
        more = RETRY_AFTER if error.status in RETRIED else ()
        exchange.respond_error(error.status, error.message, more)


def refuse_unforeseen(exchange: Exchange, error: Exception) -> None:
    """Answer that something went wrong here, and log what."""
    LOGGER.error("a request to %s failed", exchange.path[:64], exc_info=error)
    refuse(exchange, RequestError(500, "Internal error; the server's log has the details"))
