"""Traces without a collector: queue, drops, spans; and that there is nothing of it where none is wanted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from unittest.mock import patch

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fastserve.errors import DefinitionError, StoreError
from fastserve.sdk.repo import load_repo
from fastserve.server import trace_export
from fastserve.server.application import FeatureApplication
from fastserve.server.exchange import Exchange
from fastserve.server.metrics import MeasuredEvaluator
from fastserve.server.metrics_table import SERVICE_CELLS
from fastserve.server.trace_export import TraceExport, traces_url
from fastserve.server.tracing import (
    SPANS_MAX,
    Trace,
    TracedAnswer,
    TracedWeighedAnswer,
    TracingApplication,
    traced_reader,
)
from fastserve.server.vector_answer import VectorAnswer, WeighedAnswer
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import KEYS, VALUES, ApplicationWorld, Connection
from tests.support.served import serving


class Exporter(SpanExporter):
    """Keeps spans; waits until it may go on, and fails when it is told to."""

    def __init__(self) -> None:
        self.batches: list[Sequence[ReadableSpan]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began = threading.Semaphore(0)
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.began.release()
        self.may_go_on.wait(10)
        self.batches.append(spans)
        if self.result is not SpanExportResult.SUCCESS:
            raise OSError("gone")
        return self.result

    def shutdown(self) -> None:
        pass


def ended(number: int = 0, status: int = 200) -> Trace:
    trace = Trace(None, "POST", f"/x/{number}", 1.0)
    trace.end(status)
    return trace


def test_what_does_not_fit_into_the_queue_is_dropped_and_nobody_waits() -> None:
    exporter = Exporter()
    export = TraceExport("", {}, exporter)
    exporter.may_go_on.clear()
    export.start()
    for number in range(trace_export.BATCH_TRACES):
        export.take(ended(number))
    assert exporter.began.acquire(timeout=10)  # the first batch is under way, and stays so
    for number in range(trace_export.QUEUE_TRACES + 7):
        export.take(ended(number))
    assert export.dropped == 7
    exporter.may_go_on.set()
    export.close()
    assert export.sent == trace_export.BATCH_TRACES + trace_export.QUEUE_TRACES
    assert max(map(len, exporter.batches)) <= trace_export.BATCH_TRACES
    assert sum(map(len, exporter.batches)) == export.sent


def test_what_the_collector_does_not_take_is_dropped_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter()
    exporter.result = SpanExportResult.FAILURE
    export = TraceExport("", {}, exporter)
    for _ in range(3):
        export.take(ended())
        export._send()
    assert (export.sent, export.dropped) == (0, 3)
    exporter.result = SpanExportResult.SUCCESS
    export.take(ended())
    export._send()
    assert (export.sent, export.dropped) == (1, 3)
    assert caplog.messages == ["traces can't be sent", "traces are sent again"]


def test_what_came_before_the_end_is_sent_also_if_nobody_has_looked_since() -> None:
    exporter = Exporter()
    export = TraceExport("", {}, exporter)
    export.take(ended())
    export._is_closing = True  # before the thread's first look
    export.start()
    export.close()
    assert (export.sent, export.dropped) == (1, 0)


def test_a_trace_that_is_no_span_is_dropped_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    export = TraceExport("", {}, Exporter())
    export.take(ended())
    with monkeypatch.context() as patched:
        patched.setattr(trace_export, "_name", lambda _: 1 // 0)
        export._send()
    export.take(ended())
    export._send()
    assert (export.sent, export.dropped) == (1, 1)


def test_only_faults_of_the_server_are_errors_of_its_span() -> None:
    exporter = Exporter()
    export = TraceExport("", {"fastserve.workspace": "w"}, exporter)
    for status in (200, 400, 404, 500, 503):
        export.take(ended(status=status))
    export._send()
    assert [span.status.is_ok for span in exporter.batches[0]] == [True, True, True, False, False]


def test_a_trace_has_so_many_parts_and_no_more() -> None:
    trace = Trace(None, "POST", "/" + "x" * 1000, 1.0)
    for _ in range(SPANS_MAX + 10):
        trace.add("merge", 1.0, 2.0)
    assert (len(trace.spans), len(trace.path)) == (SPANS_MAX, 256)


class TracedWorld(ApplicationWorld):
    """An application of which every request is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[Trace] = []
        for runtime in self.engine.services.values():
            places = len(runtime.plan.places)
            runtime.evaluator = MeasuredEvaluator(runtime.evaluator, [0] * SERVICE_CELLS, places)
        self.engine.attach(traced_reader(self.store.reader))
        self.application.measure({}, TracedAnswer, TracedWeighedAnswer)
        self.application = TracingApplication(  # type: ignore[assignment]
            self.application, 1.0, lambda: 0.5, self.traces.append
        )


def test_a_trace_tells_the_parts_of_a_request_s_way() -> None:
    world = TracedWorld()
    assert world.features("fraud:v2", KEYS).json["result"]["features"] == VALUES
    (trace,) = world.traces
    assert trace.attributes == {"fastserve.service": "fraud:v2", "fastserve.vectors": 1}
    assert [name for name, _, _, _ in trace.spans] == ["parse", "merge", "encode", "store call"]
    assert trace.spans[-1][3] == {"fastserve.store": "main", "fastserve.keys": 3}


def test_requests_that_share_a_call_are_all_told_of_it() -> None:
    world = TracedWorld()
    body = b'{"params":{"featureServiceName":"plain","joinKeyMap":{"user_id":"u1"}}}'
    sent = [world.send("POST", "/api/v1/feature-service/get-features", body) for _ in range(3)]
    world.turn()
    world.store.answer()
    assert [connection.answers[0].status for connection in sent] == [200] * 3
    assert len({call for trace in world.traces for call in trace.calls}) == 1
    assert [len(trace.calls) for trace in world.traces] == [1] * 3


def test_a_call_that_failed_is_an_error_and_names_no_key() -> None:
    world = TracedWorld()
    world.store.failing["u1"] = StoreError("gone: u1")
    answer = world.features("plain", {"user_id": "u1"})
    assert answer.status == 503
    (trace,) = world.traces
    ((_, _, _, attributes),) = [span for span in trace.spans if span[0] == "store call"]
    assert attributes["error.type"] == "StoreError"
    assert "u1" not in repr(trace.spans) + repr(trace.attributes)


def test_the_caller_s_decision_goes_before_chance() -> None:
    world = TracedWorld()
    for value, is_traced in ((b"00-%032d-%016d-00" % (1, 1), False), (b"00-%032d-%016d-01" % (1, 1), True)):
        world.traces.clear()
        head = RequestHead("POST", "/x", "", 0, False, True, False, False, None, None, None, None)
        head.traceparent = value
        world.application(Exchange(Connection(), head, b"", 1.0))
        assert bool(world.traces) is is_traced


@pytest.mark.parametrize(
    "endpoint",
    ["", "collector", "ftp://a", "http://", "http://a:b", "http://a:0", "http://a?x=1", "http://[a"],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(DefinitionError, match=r"^trace_endpoint: expected http://HOST:PORT"):
        traces_url(endpoint)


def test_an_endpoint_has_the_standard_path_unless_it_has_its_own() -> None:
    assert traces_url("http://a:4318") == traces_url("http://a:4318/") == "http://a:4318/v1/traces"
    assert traces_url("https://a/otlp/v1/traces") == "https://a/otlp/v1/traces"
    with pytest.raises(DefinitionError, match=r"got one with credentials; OTEL_EXPORTER_OTLP_HEADERS"):
        traces_url("http://u:p@a")


def test_without_the_extra_it_is_said_what_to_install() -> None:
    def nothing(name: str) -> None:
        raise ModuleNotFoundError(name)

    with (
        patch.object(trace_export, "find_spec", nothing),
        pytest.raises(
            DefinitionError, match=r"fastserve\[otel\] to be installed.*pip install 'fastserve\[otel\]'"
        ),
    ):
        traces_url("http://a:4318")
    assert util.find_spec("opentelemetry.sdk.trace") is not None


def test_where_no_endpoint_is_given_nothing_of_it_is_on_a_request_s_way(tmp_path: Path) -> None:
    (tmp_path / "users.py").write_text('import fastserve as fs\nfs.Entity("u", fs.Field("id", fs.String))\n')

    async def story() -> None:
        async with serving(load_repo(tmp_path), f"local:{tmp_path / 'store'}") as served:
            application = served._application
            assert type(application) is FeatureApplication
            assert (application._single, application._batch) == (VectorAnswer, WeighedAnswer)

    asyncio.run(story())
