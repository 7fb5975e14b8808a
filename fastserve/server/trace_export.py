"""Traces on their way to a collector, as OTLP over HTTP, by OpenTelemetry's SDK in a thread of its own.

The loop hands over what has ended and goes on; all else, spans and their bytes and connections, is the
thread's. It needs the extra `fastserve[otel]`, which nothing else imports.

Invariants
1. The loop never waits: what doesn't fit into the queue is dropped and counted, and so is what the collector
   doesn't take.
2. At most `BATCH_TRACES` are made into spans at once, since while they are made the loop may have to wait for
   the interpreter.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastserve.errors import DefinitionError, shown
from fastserve.server.tracing import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

LOGGER = logging.getLogger("fastserve")
QUEUE_TRACES = 2048
BATCH_TRACES = 64
SEND_EVERY_S = 1.0
SEND_TIMEOUT_S = 5.0
"""For a batch with all its tries, unless one of `TIMEOUT_VARIABLES` says otherwise."""
TIMEOUT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
CLOSE_TIMEOUT_S = 3.0
TRACES_PATH = "/v1/traces"
EXTRA = "fastserve[otel]"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_MODULES = ("opentelemetry.sdk.trace", _EXPORTER)
_ACTIONS = ("get-features", "get-features-batch", "metadata", "ingest", "get-online-features")


def traces_url(endpoint: str) -> str:
    """Return where traces are posted: the endpoint, with the standard path where it has none.

    Raises:
        DefinitionError: it isn't a URL, has credentials, or the extra isn't installed.
    """
    wrong = "trace_endpoint: expected http://HOST:PORT or https://HOST, with or without a path"
    try:
        parts = urlsplit(endpoint)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise DefinitionError(f"{wrong}, got {shown(endpoint)}") from None
    if not is_usable or parts.query or parts.fragment:
        raise DefinitionError(f"{wrong}, got {shown(endpoint)}")
    if "@" in parts.netloc:
        raise DefinitionError(f"{wrong}, got one with credentials; OTEL_EXPORTER_OTLP_HEADERS may have them")
    for module in _MODULES:
        if not _is_there(module):
            raise DefinitionError(
                f"trace_endpoint: expected the extra {EXTRA} to be installed, got no {module}; "
                f"pip install '{EXTRA}'"
            )
    return endpoint if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{TRACES_PATH}"


def trace_exporter(endpoint: str) -> str:
    """Return the module that sends traces, to be imported once before the fork.

    Raises:
        DefinitionError: as `traces_url`.
    """
    traces_url(endpoint)
    return _EXPORTER


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


class TraceExport:
    """The queue of one worker, and the thread that empties it."""

    def __init__(self, url: str, resource: dict[str, str], exporter: SpanExporter | None = None) -> None:
        from opentelemetry.sdk.resources import Resource

        self._exporter = exporter or _exporter(url)
        self._resource = Resource.create({"service.name": "fastserve", **resource})
        self._queue: deque[Trace] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="fastserve-traces", daemon=True)
        self.sent = 0
        self._refused = 0  # by the loop, for the queue was full
        self._lost = 0  # by the thread, for the collector didn't take them

    @property
    def dropped(self) -> int:
        """How many traces weren't sent."""
        return self._refused + self._lost

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def take(self, trace: Trace) -> None:
        """Take what has ended, or drop it."""
        if len(self._queue) >= QUEUE_TRACES:
            self._refused += 1
            return
        self._queue.append(trace)
        if len(self._queue) == BATCH_TRACES:
            self._wake.set()

    def close(self) -> None:
        """Send what is left, for at most `CLOSE_TIMEOUT_S`; not to be called in a loop."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        self._exporter.shutdown()

    # --- in the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(SEND_EVERY_S)
            self._wake.clear()
            self._send_all()
        self._send_all()  # what came after the last look

    def _send_all(self) -> None:
        while self._queue:
            self._send()

    def _send(self) -> None:
        traces = [self._queue.popleft() for _ in range(min(BATCH_TRACES, len(self._queue)))]
        was_sent = self._exported(traces)
        if was_sent:
            self.sent += len(traces)
        else:
            self._lost += len(traces)
        if was_sent is self._failed:  # said when it begins and when it ends
            self._failed = not was_sent
            LOGGER.warning("traces can't be sent" if self._failed else "traces are sent again")

    def _exported(self, traces: Sequence[Trace]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            spans = [span for trace in traces for span in self._spans(trace)]
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - traces may be lost, the thread may not
            LOGGER.debug("traces can't be sent: %s", error)
            return False

    def _spans(self, trace: Trace) -> list[ReadableSpan]:
        """Return the request's span and those of its parts."""
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

        parent = trace.parent
        trace_id = random.getrandbits(128) or 1 if parent is None else parent.trace_id

        def context(span_id: int, *, is_remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED))

        own = context(_new_span_id())
        caller = None if parent is None else context(parent.span_id, is_remote=True)
        about: dict[str, str | int] = {
            "http.request.method": trace.method,
            "url.path": trace.path,
            "http.response.status_code": trace.status,
            **trace.attributes,
        }
        name = _name(trace)
        spans = [self._span(trace, name, own, caller, trace.started_s, trace.ended_s, about, SpanKind.SERVER)]
        for part, start_s, end_s, attributes in trace.spans:
            kind = SpanKind.CLIENT if "fastserve.store" in attributes else SpanKind.INTERNAL
            made = context(_new_span_id())
            spans.append(self._span(trace, part, made, own, start_s, end_s, attributes, kind))
        return spans

    def _span(
        self,
        trace: Trace,
        name: str,
        context: Any,
        parent: Any,
        start_s: float,
        end_s: float,
        attributes: dict[str, str | int],
        kind: Any,
    ) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import Status, StatusCode

        # After the conventions for HTTP servers only 5xx is an error of the server's span.
        failed = trace.status >= 500 if kind.name == "SERVER" else "error.type" in attributes
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=kind,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=trace.epoch_ns + int(start_s * 1e9),
            end_time=trace.epoch_ns + int(end_s * 1e9),
            instrumentation_scope=InstrumentationScope("fastserve"),
        )


def _name(trace: Trace) -> str:
    """Return a name out of few: paths hold names of workspaces and services."""
    action = trace.path.rsplit("/", 1)[-1]
    return f"{trace.method} {action}" if action in _ACTIONS else trace.method


def _new_span_id() -> int:
    return random.getrandbits(64) or 1


def _exporter(url: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    is_set = any(os.environ.get(name) for name in TIMEOUT_VARIABLES)  # it reads them only if it is given none
    return OTLPSpanExporter(endpoint=url, timeout=None if is_set else SEND_TIMEOUT_S)
