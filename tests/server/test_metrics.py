"""What requests and evaluations add to a worker's cells."""

from __future__ import annotations

import re
from dataclasses import replace
from time import monotonic

import pytest

from fastserve.server.exchange import Exchange
from fastserve.server.metrics import MeasuredEvaluator, Publisher, make_meter
from fastserve.server.metrics_table import (
    LAG_BOUNDS_S,
    LATENCY_BOUNDS_S,
    METRICS,
    SERVICE_CELLS,
    STORE_CELLS,
    WORKER_CELLS,
    Kind,
    Of,
    ServiceCell,
    StoreCell,
    WorkerCell,
    metrics_markdown,
)
from fastserve.serving.columns import Columns, RowReport, no_columns
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import V1, ApplicationWorld, Connection
from tests.support.http_connection import GET, asking
from tests.support.server_process import ROOT

HEAD = RequestHead("POST", "/", "", 0, False, True, False, False, None, None, None, None)


@pytest.mark.parametrize(
    "took_s, bucket", [(0, 0), (0.00005, 0), (0.0007, 3), (0.9, 15), (9, 18), (11, 19), (3600, 19)]
)
def test_an_answer_is_counted_by_its_status_and_time(took_s: float, bucket: int) -> None:
    cells = [0] * SERVICE_CELLS
    meter = make_meter(cells)
    meter(Exchange(Connection(), HEAD, b"", monotonic() - took_s), 200)
    latencies = cells[ServiceCell.LATENCY :]
    assert [number for number, count in enumerate(latencies) if count] == [bucket]
    assert cells[ServiceCell.LATENCY_NS] >= took_s * 1e9
    for status in (400, 429, 500, 504):
        meter(Exchange(Connection(), HEAD, b"", monotonic()), status)
    assert cells[: ServiceCell.LATENCY_NS] == [1, 2, 2]
    assert sum(cells[ServiceCell.LATENCY :]) == 5


def test_an_evaluation_is_counted_with_what_was_unusual() -> None:
    class Evaluator:
        def evaluate(self, lines: object, now_ns: int, zero_counts: object = None) -> Columns:
            columns = no_columns(2)
            columns.report = RowReport({(0, 0): "x"}, 2, 3, 4, unwritten={(1, 4)})
            return columns

    cells = [0] * SERVICE_CELLS
    measured = MeasuredEvaluator(Evaluator(), cells, 5)
    assert measured.evaluate([[None, "", "", None, ""], [None, "", "", "", "no row"]], 0).report.expired == 2
    assert measured.missing == [2, 0, 0, 1, 1]
    assert cells[ServiceCell.EVALUATIONS] == 1
    assert cells[ServiceCell.VECTORS : ServiceCell.LATENCY] == [2, 10, 4, 2, 1, 3]


def test_each_answer_is_told_once_to_the_meter_of_its_exchange() -> None:
    told: list[int] = []
    client = asking()
    client.send(GET * 4)
    for exchange in client.exchanges[:3]:
        exchange.meter = lambda _, status: told.append(status)
    refused, whole, parts, unmetered = client.exchanges
    parts.respond_json(b"[", b"]")
    refused.respond_error(400, "no")
    whole.respond(200, b"{}")
    unmetered.respond(200, b"{}")
    assert told == [200, 400, 200]
    assert len(client.answers()) == 4


def test_a_service_is_measured_by_its_own_meter(world: ApplicationWorld) -> None:
    cells = [0] * SERVICE_CELLS
    meter = make_meter(cells)
    world.application.measure({"plain": meter})
    exchange = refused_exchange(world, "plain")
    assert exchange.meter is meter
    assert refused_exchange(world, "fraud:v2").meter is None


def refused_exchange(world: ApplicationWorld, service: str) -> Exchange:
    body = b'{"params":{"featureServiceName":"%b","joinKeyMap":{}}}' % service.encode()
    exchange = Exchange(Connection(), replace(HEAD, path=V1 + "get-features"), body, 0.0)
    world.application(exchange)
    return exchange


def test_numbers_are_carried_over_on_top_of_what_was_there() -> None:
    cells = [0] * STORE_CELLS
    cells[StoreCell.KEYS] = 100
    cells[StoreCell.KEYS_IN_FLIGHT] = 9
    numbers = [3, 4]
    publisher = Publisher(cells)
    publisher.counter(StoreCell.KEYS, lambda: numbers[0])
    publisher.gauge(StoreCell.KEYS_IN_FLIGHT, lambda: numbers[1])
    publisher.publish()
    publisher.publish()
    assert (cells[StoreCell.KEYS], cells[StoreCell.KEYS_IN_FLIGHT]) == (103, 4)


def test_a_late_timer_is_counted_and_an_early_one_is_none() -> None:
    cells = [0] * WORKER_CELLS
    publisher = Publisher(cells)
    for late_s in (-0.001, 0.02, 5.0):
        publisher.note_lag(late_s)
    assert cells[WorkerCell.LAG :] == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert cells[WorkerCell.LAG_NS] == 5_020_000_000


# --- the table ------------------------------------------------------------------------------------------


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"fastserve_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert metric.help.endswith(".")
        if metric.kind is Kind.HISTOGRAM:
            assert metric.name.endswith("_seconds")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_no_cell_is_counted_twice_and_buckets_fit() -> None:
    for of, cells in ((Of.SERVICE, ServiceCell), (Of.SERVER, WorkerCell), (Of.STORE, StoreCell)):
        used = [cell for metric in METRICS if metric.of is of for _, cell in metric.cells]
        assert len(used) == len(set(used))
        assert set(used) == {int(cell) for cell in cells}
    assert len(LATENCY_BOUNDS_S) + 1 + ServiceCell.LATENCY == SERVICE_CELLS
    assert (LATENCY_BOUNDS_S[0], LATENCY_BOUNDS_S[-1]) == (0.0001, 10)
    assert list(LATENCY_BOUNDS_S) == sorted(LATENCY_BOUNDS_S)
    assert list(LAG_BOUNDS_S) == sorted(LAG_BOUNDS_S)


def test_the_page_of_metrics_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_markdown()
