"""Views of one bundle have jobs of their own: what they write, what they leave alone, what applying says."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest.apply import ApplyPlan, plan_apply
from fastserve.ingest.export import export
from fastserve.ingest.materialize import MaterializeReport, materialize
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, new_runner
from fastserve.ingest.registry import Registry
from fastserve.ingest.stream_writer import StreamWriter
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from fastserve.tiles.times import format_time
from tests.ingest.stream_world import NOW_NS, StreamWorld
from tests.ingest.support import DAY_NS, UNTIL_NS, Workbench

DEFINITIONS = """
    source = FileSource("events", "events.csv", timestamp_field="at")
    sums = aggregates(Field("amount", Float64), ["sum"], [days(7)])
    spend = FeatureView("spend", user, source, sums, aggregation_interval=hours(1), bundle="items")
    profile = FeatureView("profile", user, source, [Attribute("name", String)], bundle="items")
    text = FeatureView("text", user, source, [Attribute("note", String)], bundle="items")
"""
STREAMED = """
    fields = [Field("user_id", String), Field("at", Timestamp), Field("cents", Int64)]
    pushes = PushSource("pushes", fields, timestamp_field="at")
    sums = [Aggregate(Field("cents", Int64), "sum", TimeWindow(days(7)))]
    latest = FeatureView("latest", user, pushes, [Attribute("cents", Int64)], bundle="items")
    other = FeatureView("other", user, pushes, [Attribute("cents", Int64)], bundle="items")
    spend = FeatureView("spend", user, pushes, sums, aggregation_interval=hours(1), bundle="items")
"""


def write_events(bench: Workbench, note: str = "n") -> None:
    lines = ["user_id,at,amount,name,note"]
    lines += [f"u{n % 40},2025-12-31T0{n % 9}:00:00Z,{n},n{n},{note}" for n in range(90)]
    bench.write("events.csv", "\n".join(lines) + "\n")


@pytest.fixture
def repo(bench: Workbench) -> Repo:
    write_events(bench)
    return bench.define(DEFINITIONS)


def test_jobs_of_views_of_one_bundle_at_once_lose_nothing(bench: Workbench, repo: Repo) -> None:
    bench.apply(repo)

    async def job(view: str) -> list[MaterializeReport]:
        store = await open_store(bench.url)
        try:
            return await materialize(repo, [view], store, until_ns=UNTIL_NS, progress=False)
        finally:
            await store.close()

    async def all_at_once() -> list[list[MaterializeReport]]:
        return list(await asyncio.gather(*[job(view) for view in repo.views]))

    for _ in range(2):  # once more is the same
        reports = asyncio.run(all_at_once())
        assert [report.keys for (report,) in reports] == [40, 40, 40]
        for view in repo.views:
            assert None not in bench.rows(bench.plan(repo, view), [(f"u{n}",) for n in range(40)])
    assert bench.row(repo, "profile", "u3") == ((20_453 * DAY_NS + 7 * 3600 * 10**9), {"name": b'"n43"'})


def test_a_key_whose_item_has_no_room_keeps_its_row_and_is_named(bench: Workbench, repo: Repo) -> None:
    bench.run(repo)
    filler = [("u3", bytes(300_000))]
    bench.with_store(lambda store: store.put_bundled("default.items", "v:former", filler))
    write_events(bench, "x" * 120_000)
    (report,) = bench.run(repo, ["text"])
    assert (report.keys, report.too_large_keys, report.too_large_samples) == (39, 1, ("u3",))
    assert report.bundle == "items"
    old, new = bench.row(repo, "text", "u3"), bench.row(repo, "text", "u4")
    assert old is not None
    assert new is not None
    assert (old[1]["note"], len(new[1]["note"])) == (b'"n"', 120_002)
    assert bench.row(repo, "profile", "u3") is not None


def test_an_export_of_a_bundle_is_refused(bench: Workbench, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="got 'spend' of the bundle 'items'"):
        asyncio.run(export(repo, ["spend"], tmp_path / "out", until_ns=UNTIL_NS))
    assert not (tmp_path / "out").exists()


# --- applying -----------------------------------------------------------------------------------------------


def planned(bench: Workbench, repo: Repo) -> ApplyPlan:
    return bench.with_store(lambda store: plan_apply(repo, store))


def changes(bench: Workbench, repo: Repo) -> list[str]:
    return [line for line in planned(bench, repo).lines() if not line.endswith("unchanged")]


def test_a_bundle_has_one_table(bench: Workbench, repo: Repo) -> None:
    assert planned(bench, repo).lines() == [
        "table default.items: to be created",
        "table default.fastserve: to be created",
        "view spend: new: must be materialized",
        "view profile: new: must be materialized",
        "view text: new: must be materialized",
    ]
    bench.apply(repo)
    assert planned(bench, repo).empty


def test_a_view_that_moves_into_a_bundle_or_out_of_it_must_be_made_again(
    bench: Workbench, repo: Repo
) -> None:
    bench.run(repo)
    out = bench.define(DEFINITIONS.replace('String)], bundle="items")', "String)])", 1))
    moved = "view profile: changed: it moved out of the bundle items, from default.items to default.profile"
    assert changes(bench, out) == [
        "table default.profile: to be created",
        f"{moved}; must be materialized again",
    ]
    bench.apply(out)

    async def recorded(store: OnlineStore) -> list[str]:
        done = await Registry(store, "default").materialized(list(repo.views))
        return [name for name, record in done.items() if record is not None]

    assert bench.with_store(recorded) == ["spend", "text"]
    bench.run(out, ["profile"])
    assert changes(bench, repo) == [
        (
            "view profile: changed: it moved into the bundle items, from default.profile to default.items; "
            "must be materialized again"
        )
    ]


def test_a_table_whose_rows_lie_otherwise_is_no_bundle_s(bench: Workbench, repo: Repo) -> None:
    bench.run(repo)
    plain = bench.define(
        """
        source = FileSource("events", "events.csv", timestamp_field="at")
        items = FeatureView("items", user, source, [Attribute("name", String)])
        """
    )
    (change,) = planned(bench, plain).incompatible
    (detail,) = change.details
    assert detail.startswith(
        "table default.items: it has items of the bundle items, which lie there in another"
    )
    assert detail.endswith("form; give the view another name or another table")
    other = bench.define(DEFINITIONS.replace('"items"', '"more"').replace('"profile"', '"items"'))
    assert [change.view for change in planned(bench, other).incompatible] == []
    bench.url = f"local:{bench.folder / 'other'}?sync=off"
    bench.run(plain)
    wrong = planned(bench, repo).incompatible
    assert [change.view for change in wrong] == ["spend", "profile", "text"]
    assert "it has rows of view items, which lie there in another form; give the bundle another name" in str(
        wrong[0]
    )


@pytest.mark.parametrize(
    "before, after, words",
    [
        ("interval=hours(1)", "interval=hours(2)", "the aggregation interval changed"),
        ('"spend", user', '"spend", [user, Entity("by", Field("cents", Int64))]', "the join keys changed"),
    ],
)
def test_blocks_stay_where_rows_move_so_they_cannot_be_cut_anew(
    bench: Workbench, before: str, after: str, words: str
) -> None:
    apart = STREAMED.replace(', bundle="items")', ")")
    bench.apply(bench.define(apart))
    moved = apart.replace("hours(1))", 'hours(1), bundle="items")')
    with pytest.raises(DefinitionError, match=rf"{words}.* the blocks in default\.spend\.stream"):
        bench.apply(bench.define(moved.replace(before, after)))
    bench.apply(bench.define(moved))
    with pytest.raises(DefinitionError, match=rf"{words}.* the blocks in default\.spend\.stream"):
        bench.apply(bench.define(apart.replace(before, after)))


# --- pushed records -----------------------------------------------------------------------------------------


def record(user: str, cents: int, age_ns: int = 0) -> dict[str, Any]:
    return {"user_id": user, "at": format_time(NOW_NS - age_ns), "cents": cents}


def test_the_newest_pushed_row_stays_in_each_view_s_attribute(bench: Workbench) -> None:
    world = StreamWorld(bench, STREAMED)

    async def story(writer: StreamWriter) -> None:
        for cents, age_s in ((1, 100), (2, 50), (3, 70)):
            await writer.write("pushes", [record("u", cents, age_s * 10**9)])

    world.told(story)
    assert (world.row("u"), world.row("u", "other")) == ({"cents": 2}, {"cents": 2})
    assert len(world.tiles()) > 0


def test_a_push_into_an_item_without_room_fails(bench: Workbench) -> None:
    world = StreamWorld(bench, STREAMED)
    bench.with_store(lambda store: store.put_bundled("default.items", "v:former", [("u", bytes(399_340))]))

    async def story(writer: StreamWriter) -> None:
        with pytest.raises(StoreError, match=r"table default\.items: the item of key 'u' has no room"):
            await writer.write("pushes", [record("u", 1)])

    world.told(story)


def test_of_pushes_that_share_a_write_only_those_without_room_fail(bench: Workbench) -> None:
    world = StreamWorld(bench, STREAMED)
    bench.with_store(lambda store: store.put_bundled("default.items", "v:former", [("u", bytes(399_340))]))

    async def story(writer: StreamWriter) -> None:
        pushed = [[record("a", 1)], [record("u", 2)], [record("b", 3), record("u", 4)], [record("c", 5)]]
        told = await asyncio.gather(
            *[writer.write("pushes", records) for records in pushed], return_exceptions=True
        )
        assert [isinstance(each, StoreError) for each in told] == [False, True, True, False]

    world.told(story)
    assert [world.row(user) for user in "abc"] == [{"cents": 1}, {"cents": 3}, {"cents": 5}]


def test_compacting_writes_and_deletes_a_view_s_own_rows(bench: Workbench) -> None:
    world = StreamWorld(bench, STREAMED)

    async def story(writer: StreamWriter) -> None:
        for user, age_ns in (("live", DAY_NS), ("dead", 6 * DAY_NS)):
            await writer.write("pushes", [record(user, 5, age_ns)])

    async def compacted(store: OnlineStore, now_ns: int) -> None:
        await compact_by_hand(
            [world.plans["spend"]],
            store,
            Registry(store, "default"),
            until_ns=now_ns,
            settings=RefreshSettings(progress=False),
            runner=new_runner(lambda: now_ns),
        )

    world.told(story)
    found = []
    for now_ns in (NOW_NS, NOW_NS + 2 * DAY_NS):
        bench.with_store(partial(compacted, now_ns=now_ns))
        found.append([row is not None for row in bench.rows(world.plans["spend"], [("live",), ("dead",)])])
    assert found == [[True, True], [True, False]]
    assert world.row("dead") == {"cents": 5}
