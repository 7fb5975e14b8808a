from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from fastserve import Aggregate, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.plan.capacity import (
    Assumptions,
    Capacity,
    Measured,
    capacity,
    estimated_cpu_us,
    service_load,
    usual_assumptions,
)
from fastserve.plan.capacity_text import capacity_text
from fastserve.plan.explain import PRICE_PER_MILLION_READ_UNITS_USD, Explanation, explain
from fastserve.plan.service import ServicePlan
from perf.data import SHAPES, service_plan
from perf.load.child import ROOT
from tests.support.plans import USER, workspace_plan

ARTICLE = {"fs_50x100": 60_000, "fs_10x100": 20_000, "fs_5x100": 20_000}


def streamed_plan() -> ServicePlan:
    """Return a service that reads a row and two blocks of a view that is pushed to."""
    amount = Field("amount", Float64)
    fields = [Field("user_id", String), Field("at", Timestamp), amount]
    pushed = PushSource("pushed", fields, timestamp_field="at")
    day = Aggregate(amount, "sum", timedelta(days=1))
    spend = FeatureView("spend", [USER], pushed, [day], aggregation_interval=timedelta(hours=1))
    return workspace_plan({"s": [spend]}).services["s"]


def explanation(service: str) -> Explanation:
    return explain(service_plan(service))


def article(assumed: Assumptions | None = None) -> Capacity:
    loads = [service_load(explanation(name), qps) for name, qps in ARTICLE.items()]
    return capacity(loads, PRICE_PER_MILLION_READ_UNITS_USD, assumed or Assumptions())


@pytest.mark.parametrize("file", ["busy-1.json", "busy-2.json"])
def test_the_line_is_near_what_was_measured(file: str) -> None:
    figures = json.loads((ROOT / "perf" / "results" / file).read_text())["services"]
    assert len(figures) == 8
    for entry in figures:
        found = service_load(explanation(entry["name"]), 1)
        # A fifth: so far apart are two measurements of one service on that machine.
        assert found.cpu_us == pytest.approx(entry["cpu_us_per_request"], rel=0.21), entry["name"]
        assert found.store_bytes == pytest.approx(entry["store_bytes_per_request"], rel=0.15), entry["name"]
        assert found.answer_bytes == pytest.approx(entry["response_bytes"], rel=0.03), entry["name"]


def test_the_line_is_within_a_tenth_of_both_measurements_mean() -> None:
    both = [
        {entry["name"]: entry["cpu_us_per_request"] for entry in json.loads(path.read_text())["services"]}
        for path in sorted((ROOT / "perf" / "results").glob("busy-?.json"))
    ]
    for name in both[0]:
        mean_us = sum(figures[name] for figures in both) / len(both)
        assert estimated_cpu_us(explanation(name)) == pytest.approx(mean_us, rel=0.11), name


def test_rates_add_up_over_services() -> None:
    found = article()
    assert found.qps == 100_000
    assert found.keys_per_s == 60_000 * 50 + 20_000 * 10 + 20_000 * 5
    assert found.read_units_per_s == 60_000 * 25 + 20_000 * 5 + 20_000 * 2.5
    assert found.calls_per_s == pytest.approx((33_000, 100_000))
    # 730 hours of 1,650,000 units a second, at an eighth of a dollar the million.
    assert found.on_demand_usd_per_month == pytest.approx(1.65 * 3600 * 730 * 0.125)
    assert found.provisioned_usd_per_month == pytest.approx(1_650_000 * 730 * 0.00013)
    table, units = found.busiest_table
    assert (table, round(units)) == ("perf.fs_50x100_v00", 30_000)


def test_workers_have_room_and_a_zone_may_fail() -> None:
    found = article(Assumptions(utilization=0.5, store_tls_share=0, machine_cpus=4, zones=3))
    cpu_us = sum(service_load(explanation(name), qps).cpu_us * qps for name, qps in ARTICLE.items())
    assert found.busy_cores == pytest.approx(cpu_us / 1e6)
    assert found.workers >= found.busy_cores / 0.5 > found.workers - 1
    assert found.machines % 3 == 0
    assert found.machines * 2 // 3 * 4 >= found.workers
    one_zone = replace(found, assumed=replace(found.assumed, zones=1))
    assert one_zone.machines * 4 >= one_zone.workers > (one_zone.machines - 1) * 4


def test_requests_in_flight_are_rate_times_time() -> None:
    load = service_load(explanation("fs_1x10"), 1000, Measured(100.0, "a test", 300.0, 200.0))
    found = capacity([load], 1.0, Assumptions(call_mean_ms=4.9, call_p99_ms=19.9))
    assert found.in_flight(4.9) == pytest.approx(5.0)
    assert found.in_flight(19.9) == pytest.approx(20.0)
    assert found.store_connections_per_worker == 20
    assert (found.store_bytes_per_s, found.answer_bytes_per_s) == (300_000, 350_000)


def test_the_busiest_table_is_that_of_all_services_together() -> None:
    loads = [service_load(explanation("fs_5x100"), 10), service_load(explanation("fs_5x100"), 20)]
    assert capacity(loads, 1.0, Assumptions()).busiest_table == ("perf.fs_5x100_v00", 15)


def test_a_stream_s_table_may_be_the_busiest() -> None:
    plan = streamed_plan()
    load = service_load(explain(plan), 10)
    found = capacity([load], 1.0, Assumptions())
    table, units = found.busiest_table
    assert (table, units) == ("w.spend.stream", 20)
    assert "25 per second, consistent where a table is pushed to" in capacity_text(found)


def test_what_is_charged_nothing_has_no_price_and_what_is_charged_stays() -> None:
    nothing = service_load(explain(streamed_plan(), unpriced=[""]), 10)
    text = capacity_text(capacity([nothing], 1.0, Assumptions()))
    assert "USD" not in text
    assert "read units  " not in text.partition("Store")[2]
    both = capacity_text(capacity([nothing, service_load(explanation("fs_1x10"), 1)], 1.0, Assumptions()))
    assert "per second, eventually consistent; of Redis none" in both
    assert "USD per month" in both


def test_redis_takes_rows_as_they_are_over_one_connection_a_worker() -> None:
    plan = service_plan("fs_5x100")
    load = service_load(explain(plan, unpriced=[""]), 100_000)
    assert load.store_bytes < 0.8 * service_load(explain(plan), 1).store_bytes
    found = capacity([load], 1.0, usual_assumptions([load], zones=1))
    assert (found.assumed.call_mean_ms, found.assumed.call_p99_ms, found.assumed.zones) == (1, 5, 1)
    assert found.calls_per_s == pytest.approx((1_000, 100_000))
    assert found.store_connections_per_worker == 1
    text = capacity_text(found)
    assert f"1 a worker to each Redis server, {found.workers} in all" in text
    assert "store_connections" not in text
    assert "on Redis 0.6 to 0.8 of that line" in text
    both = [load, service_load(explanation("fs_1x10"), 1)]
    assert usual_assumptions(both) == Assumptions()
    assert "raise store_connections (32)" in capacity_text(capacity(both, 1.0, Assumptions()))
    known = service_load(explain(plan, unpriced=[""]), 1, Measured(50.0, "a run on Redis"))
    assert "DynamoDB" not in capacity_text(capacity([known], 1.0, Assumptions()))


def test_nothing_needs_less_than_a_worker() -> None:
    load = service_load(explanation("fs_1x10"), 0)
    found = capacity([load], 1.0, Assumptions(zones=1))
    assert (found.workers, found.machines) == (1, 1)
    assert "0 USD per month" in capacity_text(found)


def test_the_text_says_estimate_where_figures_come_from_and_what_is_left_out() -> None:
    on_demand = service_load(explanation("jaccard_python"), 10)
    text = capacity_text(capacity([on_demand], 1.0, Assumptions()))
    assert text.startswith("An ESTIMATE for 10 requests per second of jaccard_python\n")
    assert "The time of on-demand code isn't in it: jaccard_python; measure them" in text
    measured = service_load(explanation("jaccard_python"), 10, Measured(55.0, "a run of mine"))
    text = capacity_text(capacity([measured], 1.0, Assumptions()))
    assert "CPU: a run of mine" in text
    assert "on-demand code" not in text
    crowded = capacity_text(article(Assumptions(store_connections=4)))
    assert "raise store_connections (4)" in crowded
    loads = [service_load(explanation("fs_1x10"), 100_000)]
    assert "raise its quota" in capacity_text(capacity(loads, 1.0, Assumptions()))


def test_every_shape_can_be_estimated_and_put_as_json() -> None:
    for name in SHAPES:
        document = capacity([service_load(explanation(name), 1)], 1.0, Assumptions()).to_json()
        assert json.loads(json.dumps(document))["estimate"] is True
