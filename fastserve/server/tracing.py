"""Traces of a sample of requests: where the time of each went, noted on its way and handed to an exporter.

It exists only where an endpoint for traces was given: then it stands before the application, answers are
`TracedAnswer`s and stores' hot sides `TracedReader`s. It knows nothing of how traces are sent.

A caller's decision counts (`traceparent`); of requests without one a share is taken by chance. Only POSTs are
traced: probes would be most of all traces and tell nothing.

Invariants
1. A trace belongs to one request and ends with its answer. A request whose client has left has none.
2. What isn't sampled costs a comparison, and a dictionary's entry per read; nothing here waits or fails.
3. A trace holds names of definitions, numbers, a path of `PATH_CHARS_MAX` at most: no keys and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time_ns
from typing import Any

from fastserve.plan.stores import MAIN_LABEL, MAIN_STORE
from fastserve.server.exchange import Answering, Application, Exchange, Headers
from fastserve.server.slow_log import TimedAnswer, TimedWeighedAnswer
from fastserve.serving.coalescer import KeyRead, Reader
from fastserve.serving.columns import Columns
from fastserve.serving.stores import MakeReader
from fastserve.wire.traceparent import TraceParent, parse_traceparent

PATH_CHARS_MAX = 256
SPANS_MAX = 64
"""A batch of 1,000 rows is evaluated in parts; of more than so many nobody reads each."""


class StoreCall:
    """One batch of keys on its way, of which traced requests may have asked for some."""

    __slots__ = ("keys", "start_s", "store")

    def __init__(self, store: str, start_s: float, keys: int) -> None:
        self.store = store
        self.start_s = start_s
        self.keys = keys


class Trace:
    """One request's times, on the monotonic clock; ``epoch_ns`` is that clock's 0 as time since the epoch."""

    __slots__ = (
        "attributes",
        "calls",
        "encode_from_s",
        "ended_s",
        "epoch_ns",
        "failed",
        "method",
        "parent",
        "path",
        "spans",
        "started_s",
        "status",
    )

    def __init__(self, parent: TraceParent | None, method: str, path: str, started_s: float) -> None:
        self.parent = parent
        self.method = method
        self.path = path[:PATH_CHARS_MAX]
        self.started_s = started_s
        self.epoch_ns = time_ns() - int(monotonic() * 1e9)
        self.attributes: dict[str, str | int] = {}
        self.spans: list[tuple[str, float, float, dict[str, str | int]]] = []
        self.calls: dict[StoreCall, float] = {}
        self.failed: set[StoreCall] = set()
        self.encode_from_s: float | None = None
        self.ended_s = 0.0
        self.status = 0

    def add(self, name: str, start_s: float, end_s: float, **attributes: str | int) -> None:
        """Note a part of the way."""
        if len(self.spans) < SPANS_MAX:
            self.spans.append((name, start_s, end_s, attributes))

    def end(self, status: int) -> None:
        """Note that the answer is on its way."""
        self.ended_s = monotonic()
        self.status = status
        if self.encode_from_s is not None:
            self.add("encode", self.encode_from_s, self.ended_s)
        for call, end_s in self.calls.items():
            about: dict[str, str | int] = {"fastserve.store": call.store, "fastserve.keys": call.keys}
            if call in self.failed:
                about["error.type"] = "StoreError"
            self.add("store call", call.start_s, end_s, **about)


class TraceTap:
    """A traced exchange's connection: its answer ends the trace."""

    __slots__ = ("_connection", "_take", "trace")

    def __init__(self, connection: Answering, trace: Trace, take: Callable[[Trace], None]) -> None:
        self._connection = connection
        self._take = take
        self.trace = trace

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        """Send an answer, and hand over the trace."""
        self._connection.send_answer(exchange, status, body, content_type, headers)
        self._ended(status)

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        """Send an answer, and hand over the trace."""
        self._connection.send_json(exchange, parts)
        self._ended(200)

    def _ended(self, status: int) -> None:
        self.trace.end(status)
        self._take(self.trace)


class TracingApplication:
    """Calls an application, and traces some of its requests.

    ``share`` of those without a usable `traceparent` are traced; ``uniform`` draws from [0, 1). ``take`` is
    handed what has ended.
    """

    def __init__(
        self,
        application: Application,
        share: float,
        uniform: Callable[[], float],
        take: Callable[[Trace], None],
    ) -> None:
        self._application = application
        self._share = share
        self._uniform = uniform
        self._take = take

    def __call__(self, exchange: Exchange) -> None:
        """Hand over an exchange, traced or not."""
        value = exchange.head.traceparent
        parent = None if value is None else parse_traceparent(value)
        is_sampled = self._uniform() < self._share if parent is None else parent.is_sampled
        if is_sampled and exchange.method == "POST":
            trace = Trace(parent, exchange.method, exchange.path, exchange.received_s)
            exchange.tap(lambda connection: TraceTap(connection, trace, self._take))
        self._application(exchange)


class TracedAnswer(TimedAnswer):
    """An answer that notes its way in its exchange's trace, if it has one."""

    trace: Trace | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        tap = self.exchange.answering
        if isinstance(tap, TraceTap):
            trace = self.trace = tap.trace
            trace.attributes["fastserve.service"] = self.handler.plan.name
            trace.add("parse", trace.started_s, monotonic())

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the next lines, with their times."""
        trace = self.trace
        if trace is not None:
            merged_s = columns.evaluated_from_s + columns.evaluated_s
            trace.add("merge", columns.evaluated_from_s, merged_s, **{"fastserve.vectors": last - first})
            if columns.computed is not None:
                trace.add("on-demand", merged_s, merged_s + columns.computed.wait_s)
            trace.attributes["fastserve.vectors"] = self.lines
            trace.encode_from_s = monotonic()
        super().on_columns(columns, first, last)


class TracedWeighedAnswer(TracedAnswer, TimedWeighedAnswer):
    """The same of a batch."""


class TracedReader:
    """A store's hot side that tells traced requests of the calls which they have waited for."""

    __slots__ = ("_calls", "_reader", "_settle", "_store", "max_keys")

    def __init__(
        self, make_reader: MakeReader, settle: Callable[[Sequence[KeyRead]], None], store: str
    ) -> None:
        self._calls: dict[KeyRead, StoreCall] = {}
        self._settle = settle
        self._store = store or MAIN_LABEL
        self._reader: Reader = make_reader(self._settled)
        self.max_keys: int = self._reader.max_keys

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Read, and remember since when."""
        call = StoreCall(self._store, monotonic(), sum([read.group.size for read in reads]))
        self._calls.update(dict.fromkeys(reads, call))
        self._reader.fetch(reads)

    def _settled(self, reads: Sequence[KeyRead]) -> None:
        now_s = monotonic()
        for read in reads:
            call = self._calls.pop(read, None)
            if call is not None:
                for trace in _traces_of(read):
                    trace.calls[call] = now_s
                    if read.error is not None:
                        trace.failed.add(call)
        self._settle(reads)


def _traces_of(read: KeyRead) -> Iterable[Trace]:
    waiters: tuple[Any, ...] = (read.waiter,) if read.joined is None else (read.waiter, *read.joined)
    for waiter in waiters:
        trace: Trace | None = getattr(waiter, "trace", None)
        if trace is not None:
            yield trace


def traced_reader(make_reader: MakeReader, store: str = MAIN_STORE) -> MakeReader:
    """Return what makes a hot side that is traced."""
    return lambda settle: TracedReader(make_reader, settle, store)
