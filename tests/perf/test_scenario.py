from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from perf.data import service_plan
from perf.environment import describe_environment
from perf.scenario import on_redis
from perf.scenario.command import keep, summarize
from perf.scenario.definition import BUNDLED, SCENARIO_1, SCENARIO_2, SCENARIOS
from perf.scenario.figures import problems_of, scenario_figures
from perf.scenario.measure import QUICK, ScenarioOptions, planned_s, run_scenario
from tests.support.redis_servers import require_redis

DAY_NS = 86_400_000_000_000
SHORT = replace(
    QUICK, duration_s=0.4, saturation_s=0.3, warmup_s=0.1, alone_s=0.2, alone_warmup_s=0.1, entities=1_000
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    measured = run_scenario(SCENARIO_2, replace(SHORT, mix_clients=4, mix_clients_with_law=16))
    figures = scenario_figures(SCENARIO_2, measured)
    return {**figures, "options": {}, "took_s": 1.0, "load_average_before": 0.0, **describe_environment()}


@pytest.mark.parametrize("service, views, part", [("fs1", 50, 1), ("fs2", 5, 10), ("fs3", 10, 5)])
def test_scenario_1_has_the_articles_features_by_kind_and_window(service: str, views: int, part: int) -> None:
    plan = service_plan(service)
    counts: Counter[int] = Counter()
    for place in plan.places:
        schema = place.view.schema
        if schema is None:
            counts[0] += len(place.view.layout.columns)
        else:
            counts.update(feature.spec.window.window_ns // DAY_NS for feature in schema.features)

    assert len(plan.places) == plan.key_count == views
    found = {days: count * part for days, count in counts.items()}
    assert found == {0: 1_250, 1: 1_000, 7: 1_250, 28: 1_250, 356: 250}


@pytest.mark.parametrize("service, views", [("fs1", 50), ("fs2", 5), ("fs3", 10)])
def test_bundled_the_same_features_are_one_key_a_vector(service: str, views: int) -> None:
    plan, apart = service_plan(f"{service}_bundled"), service_plan(service)

    assert (plan.key_count, len(plan.places), len(plan.outputs)) == (1, views, len(apart.outputs))
    assert plan.row_bytes == apart.row_bytes
    assert set(BUNDLED["scenario1"].shares) == {f"{name}_bundled" for name in SCENARIO_1.shares}


def test_shares_are_those_of_a_whole_and_the_keys_those_of_the_article() -> None:
    for scenario in SCENARIOS.values():
        assert sum(scenario.shares.values()) == pytest.approx(1)
    keys = sum(share * service_plan(name).key_count for name, share in SCENARIO_1.shares.items())
    assert keys * SCENARIO_1.scaled_fs_qps == SCENARIO_1.article_ddb_qps


def test_each_scenario_is_planned_to_end_within_five_minutes() -> None:
    for scenario in SCENARIOS.values():
        assert planned_s(scenario, ScenarioOptions()) < 240


def test_a_scenario_is_measured_with_right_values_under_the_promised_names(document: dict[str, Any]) -> None:
    (service,) = document["services"]
    assert problems_of(document) == []
    names = {
        "name",
        "fs_qps",
        "ddb_qps",
        "p50_ms",
        "p90_ms",
        "p95_ms",
        "p99_ms",
        "errors",
        "cpu_us_per_request",
    }
    assert names <= set(service)
    assert {"mix_cpu_us", "cores_per_100k_fs_qps", "machine", "versions", "commit"} <= set(document)
    assert service["ddb_qps"] > service["fs_qps"] > 0
    assert 0 < service["p50_ms"] <= service["p99_ms"]
    assert document["mix_cpu_us"] == service["cpu_us_per_request"] > 5
    assert document["cores_per_100k_fs_qps"] == pytest.approx(document["mix_cpu_us"] / 10)
    assert "extrapolation" in document["extrapolation"]["is"]


def test_loads_are_at_their_shares_of_saturation_with_and_without_the_law(document: dict[str, Any]) -> None:
    assert [(load["law"], load["share"]) for load in document["loads"]] == [
        *((False, 0.5), (False, 0.8)),
        *((True, 0.5), (True, 0.8)),
    ]
    for load in document["loads"]:
        assert load["stalls"]["probes"] > 0
        assert ("above_store_ms" in load) == load["law"]
        assert set(load["busy_cores"]) == {"server", "stand_in", "generator"}


def test_a_result_is_kept_as_figures_picture_and_page(document: dict[str, Any], tmp_path: Path) -> None:
    keep(document, tmp_path / "result.json")

    assert orjson.loads((tmp_path / "result.json").read_bytes())["scenario"] == "scenario2"
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "result.html").read_text()
    assert "an extrapolation and not a measurement" in page
    assert "the article" in page
    assert 'src="data:image/png;base64,' in page
    assert "http:" not in page
    assert "https:" not in page
    assert "extrapolated, not measured: 40,000 FS-QPS" in summarize(document)


def test_a_failed_answer_is_told_with_its_load(document: dict[str, Any]) -> None:
    (service,) = document["loads"][0]["services"]
    broken = {**service, "errors": 2, "problems": ["status 503"]}
    load = {**document["loads"][0], "services": [broken]}

    (problem,) = problems_of({**document, "loads": [load]})

    assert problem.startswith("without the latency law, 50% of saturation, jaccard_python: 2 errors")


def test_a_scenario_on_redis_has_right_values_and_says_what_redis_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_redis()
    options = replace(SHORT, mix_clients=4, open_connections=16, loads=(0.2,), entities=50)
    status, (promise,) = on_redis.run(SCENARIO_2, options, tmp_path / "redis.json")
    document = orjson.loads((tmp_path / "redis.json").read_bytes())
    assert (status, document["problems"], document["store"]) == (0, [], "redis")
    assert promise["measured"] == document["mix_cpu_us"] == document["alone"]["jaccard_python"]["cpu_us"]
    (load,) = document["loads"]
    assert 1 <= load["keys_per_call"] <= 500
    assert 0 < load["p50_ms"] <= load["p99_ms"]
    assert "jaccard_python alone" in capsys.readouterr().out
