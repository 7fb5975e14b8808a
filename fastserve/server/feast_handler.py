"""Feast's `POST /get-online-features` over the engine: requests prepared, submitted, answered.

Invariants
1. Every exchange is answered once; a row that can't be read refuses the request, and is never a null.
2. What a list of features comes to is worked out once and kept, for clients send the same list over and over;
   at most `MAX_KEPT` lists are, of `MAX_KEPT_NAMES` features in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastserve.api.decode import decode_timeout_s
from fastserve.api.feast import (
    FeastFault,
    FeastRequest,
    decode_feast_request,
    encode_feast_answer,
    feast_error_body,
    result_names,
    selections_of,
)
from fastserve.api.feast_columns import KeyColumns, join_key_columns, row_count
from fastserve.errors import RequestError, StoreError
from fastserve.plan.feast import FeastPlan
from fastserve.plan.service import WorkspacePlan
from fastserve.server.exchange import Exchange, Meter
from fastserve.server.vector_answer import LATE_S, LOGGER, RETRIED, RETRY_AFTER, store_refusal
from fastserve.serving.admission import Admission
from fastserve.serving.columns import Columns
from fastserve.serving.engine import Engine
from fastserve.serving.feast import FeastRuntime, PartColumns, UnreadableRow, take_lines
from fastserve.serving.requests import VectorRequest
from fastserve.wire.http1_answer import JSON

PATH = "/get-online-features"
HEALTH = "/health"
FEATURE_LISTS = PATH
"""What metrics call requests that name features and no service; no service has such a name."""
MAX_KEPT = 256
MAX_KEPT_NAMES = 50_000
"""Of features in all lists that are kept: some 10 MB, whatever clients make up."""


def counted_services(plan: WorkspacePlan) -> list[str]:
    """Return by what names requests for features are counted."""
    return [*plan.services, *([] if plan.feast is None else [FEATURE_LISTS])]


class Prepared:
    """What a list of features, or a service, comes to."""

    __slots__ = ("keys", "names", "runtime")

    def __init__(self, plan: FeastPlan, request: FeastRequest) -> None:
        parts = selections_of(plan, request)
        self.runtime = FeastRuntime(parts)
        self.keys = KeyColumns(parts)
        self.names = result_names(parts, full_names=request.full_names)


class FeastHandler:
    """Answers Feast's requests for one workspace. ``clock_ns`` is the request clock, by which rows expire."""

    def __init__(
        self,
        plan: FeastPlan,
        engine: Engine,
        admission: Admission,
        clock_ns: Callable[[], int],
        now_s: Callable[[], float],
        call_later: Callable[..., object],
        server_timeout_s: float,
        max_rows: int,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._admission = admission
        self.clock_ns = clock_ns
        self.now_s = now_s
        self._call_later = call_later
        self._timeout_s = server_timeout_s
        self._max_rows = max_rows
        self._kept: dict[tuple[str | None, tuple[str, ...], bool], Prepared] = {}
        self._kept_names = 0
        self._meters: Mapping[str, Meter] = {}
        self._answer: type[FeastAnswer] = FeastAnswer

    def measure(self, meters: Mapping[str, Meter], answer: type[FeastAnswer]) -> None:
        """Tell these meters, by service, of the answers to come, and let them be of this kind."""
        self._meters = meters
        self._answer = answer

    def submit(self, exchange: Exchange) -> None:
        """Take a request; its answer goes out now, or when its rows have come."""
        try:
            self._submit(exchange)
        except RequestError as error:
            refuse(exchange, error)

    def _submit(self, exchange: Exchange) -> None:
        request = decode_feast_request(exchange.body)
        exchange.meter = self._meters.get(request.service or FEATURE_LISTS)
        prepared = self._prepared(request)
        runtime = prepared.runtime
        columns = join_key_columns(self._plan, request, runtime.parts)
        rows = row_count(request)
        if rows > self._max_rows:
            raise FeastFault(400, f"`entities`: expected at most {self._max_rows} rows, got {rows}")
        texts, columns = prepared.keys.texts(columns, rows)
        timeout_s = self._timeout_s
        if exchange.head.request_timeout_ms is not None:
            timeout_s = min(timeout_s, decode_timeout_s(exchange.head.request_timeout_ms))
        answer = self._answer(self, exchange, prepared, columns, rows, timeout_s)
        answer.weigh(rows, self._admission)
        self._engine.submit(answer, texts, exchange.received_s)
        if timeout_s < self._timeout_s and not exchange.is_answered:
            self._call_later(max(0.0, answer.deadline_s - self.now_s()), self._engine.give_up, answer)

    def _prepared(self, request: FeastRequest) -> Prepared:
        key = (request.service, () if request.service else tuple(request.features), request.full_names)
        prepared = self._kept.get(key)
        if prepared is None:
            prepared = Prepared(self._plan, request)
            self._kept_names += len(prepared.names)
            while self._kept and (len(self._kept) >= MAX_KEPT or self._kept_names > MAX_KEPT_NAMES):
                oldest = self._kept.pop(next(iter(self._kept)))
                self._kept_names -= len(oldest.names)
            self._kept[key] = prepared
        return prepared


class FeastAnswer(VectorRequest):
    """One request on its way, and its own owner: takes rows in as they come, puts the answer together."""

    __slots__ = (
        "_admission",
        "_columns",
        "_handler",
        "_names",
        "_now_ns",
        "_rows",
        "_taken",
        "_timeout_s",
        "_weight",
        "exchange",
        "parts",
    )

    def __init__(
        self,
        handler: FeastHandler,
        exchange: Exchange,
        prepared: Prepared,
        columns: Mapping[str, list[Any]],
        rows: int,
        timeout_s: float,
    ) -> None:
        deadline_s = exchange.received_s + timeout_s
        super().__init__(prepared.runtime, self, deadline_s, zero_counts=False, budget=False)
        self.exchange = exchange
        self.parts = [PartColumns(part) for part in prepared.runtime.parts]
        self._names = prepared.names
        self._handler = handler
        self._columns = columns
        self._rows = rows
        self._taken = 0
        self._now_ns = 0
        self._timeout_s = timeout_s

    def weigh(self, rows: int, admission: Admission) -> None:
        """Count the request's rows from now until the release; the request itself is counted as one."""
        self._admission = admission
        self._weight = rows - 1
        admission.hold(self._weight)

    def release(self) -> None:
        """Let go of rows and owner; the rows don't count any more."""
        super().release()
        self._admission.hold(-self._weight)

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the next lines; with the last one the answer goes out."""
        if self.exchange.is_answered:
            return
        try:
            if not self._taken:
                self._check_reads()
                self._now_ns = self._handler.clock_ns()
            through = self._taken + last - first
            take_lines(self.parts, self.reads, self._taken, through, self._now_ns)
            self._taken = through
            if through == self._rows:
                self.exchange.respond_json(
                    *encode_feast_answer(self._columns, self.parts, self._names, self._rows)
                )
        except UnreadableRow as error:
            view = error.selection.view
            message = f"A row of view {view.name!r} in table {view.view.table} can't be read: {error.reason}"
            refuse(self.exchange, RequestError(503, message))
        except RequestError as error:
            refuse(self.exchange, error)
        except Exception as error:  # noqa: BLE001 - answered and logged; requests beside it go on
            self.on_failure(error)

    def _check_reads(self) -> None:
        """Refuse a request of which a read has failed: what is unprocessed or unread isn't absent."""
        for read in self.reads:
            if read.error is not None:
                raise self._refusal(read.error)

    def _refusal(self, error: StoreError) -> RequestError:
        if error.timed_out and self._handler.now_s() >= self.deadline_s - LATE_S:
            return self._timed_out()
        return store_refusal(error)

    def on_timeout(self) -> None:
        """Answer that the timeout has passed."""
        refuse(self.exchange, self._timed_out())

    def _timed_out(self) -> RequestError:
        return RequestError(504, f"No answer within the timeout of {self._timeout_s:g} s")

    def on_failure(self, error: Exception) -> None:
        """Answer that something went wrong which nobody foresaw."""
        LOGGER.error("a request to %s failed", PATH, exc_info=error)
        refuse(self.exchange, RequestError(500, "Internal error; the server's log has the details"))


def refuse(exchange: Exchange, error: RequestError) -> None:
    """Answer with an error as Feast's SDK takes it, unless an answer has gone out."""
    if not exchange.is_answered:
        headers = RETRY_AFTER if error.status in RETRIED else ()
        exchange.respond(error.status, feast_error_body(error), JSON, headers)
