"""Wide aggregates from files to answers: texts, keyed values, entities over batches' ends, rows too large."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.api.encode import FeaturesEncoder
from fastserve.cli.materialize import remarks
from fastserve.ingest import partition
from fastserve.plan.service import plan_workspace
from fastserve.sdk.repo import Repo
from fastserve.serving.transport import RAW_ROWS
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.layout import NO_ROW
from tests.ingest.support import DAY_NS, HOUR_NS, UNTIL_NS, Workbench
from tests.ingest.test_materialize import time_text
from tests.tiles.wide_cases import naive

DEFINITIONS = """
    source = FileSource("events", "events.csv", timestamp_field="at")
    kind, amount, paid = Field("kind", String), Field("amount", Float64), Field("paid", Bool)
    week = TimeWindow(days(7))
    features = [
        Aggregate(kind, "max", week, name="a_max"),
        Aggregate(kind, last_distinct(3), week, name="b_kinds"),
        Aggregate(amount, first(4), week, name="c_first"),
        Aggregate(paid, "last", week, name="d_paid"),
        Aggregate(amount, approx_percentile(0.5, 500), week, name="e_median"),
        Aggregate(kind, "last", LifetimeWindow(), name="f_last"),
    ]
    events = FeatureView("events", user, source, features, aggregation_interval=hours(1))
    keyed = FeatureView("keyed", user, source,
        [Aggregate(amount, "sum", week, name="a_sum"), Aggregate(kind, last(1), week, name="b_last")],
        aggregation_interval=hours(1), aggregation_secondary_key=Field("shop", Int64))
    both = FeatureService("both", features=[events, keyed])
"""
Row = tuple[str, int, dict[str, Any]]


def events(count: int, seed: int) -> list[Row]:
    chance = random.Random(seed)
    return [
        (
            chance.choice(["u1", "u1", "u1", "u2", "u3"]),
            UNTIL_NS - chance.randrange(10 * 24) * HOUR_NS + chance.choice([0, -1, 1]),
            {
                "kind": chance.choice([None, "b", "a", 'é"', "z" * 30]),
                "amount": chance.choice([None, chance.randrange(-99, 99) / 4]),
                "paid": chance.choice([None, True, False]),
                "shop": chance.choice([None, 1, 2, -(2**40)]),
            },
        )
        for _ in range(count)
    ]


def csv(rows: list[Row]) -> str:
    lines = ["user_id,at,kind,amount,paid,shop"]
    for key, time_ns, values in rows:
        kind = values["kind"]
        quoted = "" if kind is None else '"' + kind.replace('"', '""') + '"'
        rest = ["" if values[name] is None else str(values[name]) for name in ("amount", "paid", "shop")]
        lines.append(",".join([key, time_text(time_ns), quoted, *rest]))
    return "\n".join(lines) + "\n"


def answers(bench: Workbench, repo: Repo, key: str, now_ns: int) -> dict[str, Any]:
    plan = plan_workspace(repo).services["both"]
    rows = [bench.rows(place.view, [(key,)])[0] for place in plan.places]
    columns = VectorEvaluator(plan, RAW_ROWS).evaluate([rows], now_ns)
    assert not columns.report.unreadable
    values = orjson.loads(FeaturesEncoder(plan).encode(columns, 0))
    return {output.name: value for output, value in zip(plan.inputs, values, strict=True)}


def expected(repo: Repo, rows: list[Row], key: str, now_ns: int) -> dict[str, Any]:
    plan = plan_workspace(repo).services["both"]
    found = {}
    for output in plan.inputs:
        spec = output.source.spec  # type: ignore[union-attr]
        start_ns = spec.window.start_ns(now_ns)
        mine = [(t, v) for owner, t, v in rows if owner == key and start_ns <= t < UNTIL_NS]
        params = {name: float(value) for name, value in spec.params}

        def value(of: list[tuple[int, Any]], spec: Any = spec, params: dict[str, float] = params) -> Any:
            there = [(t, v[spec.column]) for t, v in of if v[spec.column] is not None]
            return naive(spec.function, params, spec.input_type, there)

        if spec.secondary_key is None:
            found[output.name] = value(mine)
            continue
        shops = sorted({v["shop"] for _, v in mine} - {None})
        if spec.function == "secondary_keys":
            found[output.name] = [str(shop) for shop in shops] or None
        else:
            found[output.name] = [value([e for e in mine if e[1]["shop"] == shop]) for shop in shops] or None
    return found


@pytest.mark.parametrize("batch", [7, 100_000])
def test_files_become_rows_that_answer_what_a_loop_over_the_events_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(partition, "BATCH_EVENTS", batch)
    bench = Workbench(tmp_path)
    rows = events(400, seed=3)
    bench.write("events.csv", csv(rows))
    repo = bench.define(DEFINITIONS)
    reports = bench.run(repo)
    assert [report.rows_bad for report in reports] == [0, 0]
    for key in ("u1", "u2", "u3"):
        for now_ns in (UNTIL_NS, UNTIL_NS + 37 * HOUR_NS + 1, UNTIL_NS + 2 * DAY_NS):
            assert answers(bench, repo, key, now_ns) == expected(repo, rows, key, now_ns)


def test_a_text_over_the_limit_makes_its_row_bad(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    good = [(f"u{n}", UNTIL_NS - HOUR_NS, events(1, n)[0][2]) for n in range(1, 40)]
    longest = {"kind": "é" * 512, "amount": None, "paid": None, "shop": None}
    too_long = {**longest, "kind": "x" + "é" * 512}
    rows = [*good, ("u0", UNTIL_NS - 5, longest), ("u0", UNTIL_NS - 4, too_long)]
    bench.write("events.csv", csv(rows))
    repo = bench.define(DEFINITIONS)
    report = bench.run(repo, ["events"])[0]
    assert report.rows_bad == 1
    assert "kind: expected a string of at most 1024 bytes, got 'xé" in str(report.bad_samples[0])
    assert bench.row(repo, "events", "u0") is not None


def test_a_key_whose_row_is_too_large_is_named_and_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "BATCH_EVENTS", 500)
    monkeypatch.setattr(partition, "MAX_ROW_BYTES", 20_000)
    bench = Workbench(tmp_path)
    values = {"kind": "a", "amount": 1.0, "paid": None}
    large = [("u2", UNTIL_NS - 1 - n, {**values, "shop": n}) for n in range(3_000)]
    small = [(key, UNTIL_NS - 1, {**values, "shop": 1}) for key in ("u1", "u3")]
    bench.write("events.csv", csv([*large, *small]))
    repo = bench.define(DEFINITIONS)
    report = bench.run(repo, ["keyed"])[0]
    assert (report.keys, report.too_large_keys, report.too_large_samples) == (2, 1, ("u2",))
    said = "keyed: 1 key has a row of more than 399360 bytes, which wasn't written: u2"
    assert remarks(report) == [said]
    assert bench.rows(bench.plan(repo, "keyed"), [("u2",)]) == [NO_ROW]
    assert bench.row(repo, "keyed", "u1") is not None
