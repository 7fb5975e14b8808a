from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastserve.cli.materialize import nanoseconds, report_text, time_text
from fastserve.ingest.badrows import BadRow
from fastserve.ingest.materialize import MaterializeReport
from tests.cli.conftest import Run

ON_DEMAND = """
request = fs.RequestSource(schema=[fs.Field("amount", fs.Float64)])

@fs.on_demand_feature_view(sources=[request], features=[fs.Attribute("twice", fs.Float64)])
def doubled(request):
    return {"twice": 2 * request["amount"]}
"""


@pytest.fixture
def applied(run: Run, shop: str) -> str:
    assert run("apply", "--repo", shop, "--store", "local:store", "--yes").code == 0
    return shop


def columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_named_views_are_materialized_until_the_time_given(run: Run, applied: str) -> None:
    argv = ["--repo", applied, "--store", "local:store", "--until", "2026-01-02T10:00:00Z"]
    ran = run("materialize", "spending", "profile", *argv)
    assert (ran.code, ran.err) == (0, "")
    heading, spending, profile = columns(ran.out)
    assert heading[:3] == ["view", "rows", "read"]
    assert [*spending[:5], spending[-1]] == ["spending", "3", "0", "1", "1", "2026-01-02T10:00:00Z"]
    assert [*profile[:5], profile[-1]] == ["profile", "2", "0", "0", "2", "2026-01-02T10:00:00Z"]


def test_without_views_all_must_be_said(run: Run, applied: str) -> None:
    where = ["--repo", applied, "--store", "local:store", "--until", "2026-01-03"]
    ran = run("materialize", *where)
    assert ran.code == 2
    assert ran.err == (
        "fastserve: error: materialize: expected names of views, or --all for profile, spending, pair, shop; "
        "got neither\n"
    )
    assert run("materialize", "profile", "--all", *where).err.endswith(
        "expected names of views or --all, got both\n"
    )
    ran = run("materialize", "--all", *where)
    assert ran.code == 0
    assert [line[0] for line in columns(ran.out)[1:]] == ["profile", "spending", "pair", "shop"]


def test_other_files_may_be_read_in_place_of_the_source_s(run: Run, applied: str, tmp_path: Path) -> None:
    for number in (1, 2):
        row = f"u{number},1,20,Rome,true,1.5,2026-01-01T00:00:00Z\n"
        (tmp_path / f"more{number}.csv").write_text(
            "user_id,merchant_id,age,city,vip,rating,at\n" + row, encoding="utf-8"
        )
    argv = ["--repo", applied, "--store", "local:store", "--until", "2026-01-03"]
    ran = run("materialize", "profile", "--input", "more1.csv", "more2.csv", *argv)
    assert columns(ran.out)[1][:2] == ["profile", "2"]
    ran = run("materialize", "profile", "spending", "--input", "more*.csv", *argv)
    assert ran.code == 2
    assert "--input: expected views of one source" in ran.err


def test_bad_rows_are_shown_and_decide_by_the_number_that_is_tolerated(
    run: Run, applied: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text(
        "user_id,age,city,vip,at\nu1,old,Rome,true,2026-01-01T00:00:00Z\nu2,30,Rome,true,2026-01-01T00:00:00Z\n",
        encoding="utf-8",
    )
    argv = [
        "profile",
        "--input",
        "bad.csv",
        "--repo",
        applied,
        "--store",
        "local:store",
        "--until",
        "2026-01-03",
    ]
    ran = run("materialize", *argv, "--max-bad-rows", "1")
    assert ran.code == 0
    assert "profile: 1 bad row was left out:\n  bad.csv, row 1: age: expected an int64" in ran.out
    ran = run("materialize", *argv, "--max-bad-rows", "0")
    assert (ran.code, ran.out) == (2, "")
    assert "row 1: age: expected an int64, got 'old'" in ran.err


def test_a_store_that_was_not_applied_says_so(run: Run, shop: str, tmp_path: Path) -> None:
    ran = run("materialize", "profile", "--repo", shop, "--store", "local:store")
    assert ran.code == 2
    assert (
        f"in the store local:store (folder {tmp_path / 'store'}), found none: name the store you applied to "
        "with --store, or run `fastserve apply` first"
    ) in ran.err


def test_an_on_demand_view_has_nothing_to_materialize(run: Run, shop: str) -> None:
    with (Path(shop) / "definitions.py").open("a", encoding="utf-8") as file:
        file.write(ON_DEMAND)
    ran = run("materialize", "doubled", "--repo", shop, "--store", "local:store")
    assert ran.code == 2
    assert "'doubled': it is computed at request time and has nothing to materialize" in ran.err


@pytest.mark.parametrize("flags", [["--until", "soon"], ["--max-bad-rows", "-1"], ["--parallel", "0"]])
def test_flags_that_can_t_be_used_are_usage_errors(run: Run, flags: list[str]) -> None:
    ran = run("materialize", "profile", *flags)
    assert ran.code == 2
    assert f"argument {flags[0]}: expected" in ran.err


def test_times_are_exact_to_the_microsecond_in_both_directions() -> None:
    moment = datetime(2013, 12, 30, 12, 0, 0, 1, tzinfo=UTC)
    assert nanoseconds(moment) == 1_388_404_800_000_001_000
    assert time_text(nanoseconds(moment)) == "2013-12-30T12:00:00.000001Z"
    assert time_text(1_388_404_800_000_000_000) == "2013-12-30T12:00:00Z"


def test_a_report_tells_what_was_left_out() -> None:
    bad = BadRow("f.csv", "row 7", "age", "an int64", None)
    report = MaterializeReport(
        view="v",
        until_ns=0,
        as_of_ns=0,
        rows_read=1_000,
        rows_bad=1,
        rows_outside=2,
        keys=3,
        bytes=4_000,
        seconds=1.25,
        bad_samples=(bad,),
        spoilt_keys=1,
        spoilt_samples=("u1",),
        resumed=2,
    )
    lines = report_text([report]).splitlines()
    assert lines[1].split() == ["v", "1,000", "1", "2", "3", "4,000", "1.2", "1970-01-01T00:00:00Z"]
    assert lines[2:] == [
        "v: 1 bad row was left out:",
        f"  {bad}",
        "v: 1 key has a sum beyond int64, which is null: u1",
        "v: 2 partitions had been written by an earlier run",
    ]
    report = replace(report, rows_bad=1_200, spoilt_keys=2, resumed=1)
    assert report_text([report]).splitlines()[2:] == [
        "v: 1,200 bad rows were left out, the first of them:",
        f"  {bad}",
        "v: 2 keys have a sum beyond int64, which is null: u1",
        "v: 1 partition had been written by an earlier run",
    ]


def test_rows_of_a_pushed_view_do_not_hold_the_future(run: Run, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "defs.py").write_text(
        "from datetime import timedelta\n"
        "from fastserve import *\n"
        "files = FileSource('files', 'events.csv', timestamp_field='at')\n"
        "schema = [Field('user_id', String), Field('amount', Float64), Field('at', Timestamp)]\n"
        "both = PushSource('both', schema, batch_source=files, timestamp_field='at')\n"
        "spend = FeatureView('spend', Entity('user', Field('user_id', String)), both,\n"
        "    [Aggregate(Field('amount', Float64), 'sum', TimeWindow(timedelta(days=1)))],\n"
        "    aggregation_interval=timedelta(hours=1))\n"
    )

    ran = run("materialize", "--all", "--repo", "repo", "--store", "local:store", "--until", "2199-01-01")

    assert ran.code == 2
    assert "--until: expected a time that is past for 'spend', which is pushed to, got 2199-01-01" in ran.err
