"""What applying a repo does to a store, said before it is done."""

from __future__ import annotations

from typing import Any

import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest.apply import ApplyPlan, execute, plan_apply
from fastserve.ingest.materialize import materialize
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand
from fastserve.ingest.registry import Registry
from fastserve.ingest.schedule import is_compacted
from fastserve.sdk.repo import Repo
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec
from tests.ingest.runners import Clock
from tests.ingest.support import UNTIL_NS, Workbench

DEFINITIONS = """
    source = FileSource("events", "events.csv", timestamp_field="at")
    amount = Field("amount", Float64)
    sums = aggregates(amount, ["sum"], [days(7)])
    spend = FeatureView("spend", user, source, sums, aggregation_interval=hours(1))
    profile = FeatureView("profile", user, source, [Attribute("age", Int64), Attribute("name", String)])
"""


def planned(bench: Workbench, repo: Repo) -> ApplyPlan:
    return bench.with_store(lambda store: plan_apply(repo, store))


def test_a_first_plan_creates_everything(bench: Workbench) -> None:
    repo = bench.define(DEFINITIONS)
    plan = planned(bench, repo)
    assert plan.lines() == [
        "table default.spend: to be created",
        "table default.profile: to be created",
        "table default.fastserve: to be created",
        "view spend: new: must be materialized",
        "view profile: new: must be materialized",
    ]
    assert not plan.empty
    assert planned(bench, repo).lines() == plan.lines()


def test_what_was_applied_is_unchanged(bench: Workbench) -> None:
    repo = bench.define(DEFINITIONS)
    for _ in range(2):
        bench.apply(repo)
        plan = planned(bench, repo)
        assert (plan.empty, plan.tables, [change.state for change in plan.changes]) == (
            True,
            (),
            ["unchanged"] * 2,
        )
    layouts = bench.with_store(lambda store: Registry(store, "default").layouts(["spend", "profile"]))
    assert layouts == {plan.name: {plan.layout.schema_id: plan.layout} for plan in planned(bench, repo).plans}


@pytest.mark.parametrize(
    "before, after, line",
    [
        ('["sum"], [days(7)]', '["sum", "max"], [days(7)]', "spend: changed: feature amount_max_7d_1h added"),
        ('["sum"], [days(7)]', '["max"], [days(7)]', "max_7d_1h added; feature amount_sum_7d_1h removed"),
        (
            'Attribute("age", Int64)',
            'Attribute("age", Float64)',
            "profile: changed: feature age changed from int64 to float64; must be materialized again",
        ),
        ("hours(1))", "hours(1), horizon=days(3))", "view spend: changed: the horizon changed; must be"),
        ("hours(1))", "hours(1), start_time=datetime(2025, 1, 1))", "spend: changed: the start time changed"),
        ("hours(1))", "hours(1), transformation='FROM events')", "changed: the transformation changed"),
        ("hours(1))", "hours(1), table='other')", "the table changed from default.spend to other"),
        ("events.csv", "more.csv", "view profile: changed: the source changed; must be materialized again"),
    ],
)  # fmt: skip
def test_a_change_is_said_in_words(bench: Workbench, before: str, after: str, line: str) -> None:
    bench.apply(bench.define(DEFINITIONS))
    repo = bench.define(DEFINITIONS.replace(before, after))
    plan = planned(bench, repo)
    assert line in "\n".join(plan.lines())
    bench.apply(repo)
    assert planned(bench, repo).empty


def test_a_new_ttl_needs_no_new_rows(bench: Workbench) -> None:
    bench.apply(bench.define(DEFINITIONS))
    plan = planned(bench, bench.define(DEFINITIONS.replace("String)])", "String)], ttl=days(3))")))
    assert plan.lines()[-1] == "view profile: changed: the ttl changed"


def test_a_view_that_is_gone_is_named_and_left_alone(bench: Workbench) -> None:
    bench.apply(bench.define(DEFINITIONS))
    repo = bench.define("\n".join(line for line in DEFINITIONS.split("\n") if "profile" not in line))
    plan = planned(bench, repo)
    assert plan.lines() == [
        "view spend: unchanged",
        "view profile: no longer defined; its table is left alone",
    ]
    assert plan.empty


def test_other_join_keys_under_the_same_rows_are_refused(bench: Workbench) -> None:
    bench.apply(bench.define(DEFINITIONS))
    changed = DEFINITIONS + '\n    user = Entity("user2", Field("user_id", Int64))\n'
    head, rest = changed.split("    spend =")
    repo = bench.define(
        head + '    user = Entity("user2", Field("user_id", Int64))\n    spend =' + rest.split("    user")[0]
    )
    plan = planned(bench, repo)
    assert [change.state for change in plan.incompatible] == ["incompatible"] * 2
    assert "the join keys changed from user_id: string to user_id: int64" in str(plan.incompatible[0])
    with pytest.raises(DefinitionError, match="expected changes that the store can follow, got:"):
        bench.with_store(lambda store: execute(plan, store))


def test_a_table_with_another_key_is_refused_and_nothing_is_done(bench: Workbench) -> None:
    repo = bench.define(DEFINITIONS)

    async def work(store: OnlineStore) -> ApplyPlan:
        await store.create_table(TableSpec("default.spend", KeyAttribute("id", "N")))
        plan = await plan_apply(repo, store)
        with pytest.raises(DefinitionError):
            await execute(plan, store)
        assert (await store.describe_tables(["default.profile"])) == {"default.profile": None}
        return plan

    plan = bench.with_store(work)
    expected = "view spend: incompatible: table default.spend: expected the key k (S), the store's has id (N)"
    assert str(plan.incompatible[0]) == expected


def test_another_workspace_is_another_set_of_tables(bench: Workbench) -> None:
    repo = bench.define(DEFINITIONS)
    plan = bench.with_store(lambda store: plan_apply(repo, store, workspace="test"))
    assert [table.name for table in plan.tables] == ["test.spend", "test.profile", "test.fastserve"]


def test_the_attributes_format_gets_a_table_with_its_keys(bench: Workbench) -> None:
    row_format = "row_format=AttributesFormat(partition_key='id', sort_key='day')"
    repo = bench.define(
        f"""
        both = Entity("both", [Field("user_id", String), Field("day", Int64)])
        source = FileSource("s", "s.csv")
        view = FeatureView("items", both, source, [Attribute("n", Int64)], {row_format})
        """
    )
    assert planned(bench, repo).tables[0] == TableSpec(
        "default.items", KeyAttribute("id"), KeyAttribute("day", "N")
    )


STREAMS = """
    amount, kind = Field("amount", Float64), Field("kind", String)
    schema = [Field("user_id", String), amount, kind, Field("at", Timestamp)]
    files = FileSource("events", "events.csv", timestamp_field="at")
    alone = PushSource("alone", schema, timestamp_field="at")
    both = PushSource("both", schema, batch_source=files, timestamp_field="at")
    sums = aggregates(amount, ["sum"], [days(7)])
    pushed = FeatureView("pushed", user, alone, sums, aggregation_interval=hours(1))
    beside = FeatureView("beside", user, both, sums, aggregation_interval=hours(1))
    newest = FeatureView("newest", user, alone, [Attribute("amount", Float64)])
"""


def test_a_stream_has_a_table_of_blocks_and_a_beginning(bench: Workbench) -> None:
    repo = bench.define(STREAMS)
    assert planned(bench, repo).lines() == [
        "table default.pushed: to be created",
        "table default.pushed.stream: to be created",
        "table default.beside: to be created",
        "table default.beside.stream: to be created",
        "table default.newest: to be created",
        "table default.fastserve: to be created",
        "view pushed: new: has what is pushed from now on",
        "view beside: new: must be materialized",
        "view newest: new: has what is pushed from now on",
    ]

    async def work(store: OnlineStore) -> tuple[Any, Any, Any]:
        await execute(await plan_apply(repo, store), store, clock_ns=lambda: 77)
        await execute(await plan_apply(repo, store), store, clock_ns=lambda: 88)
        registry = Registry(store, "default")
        names = ["pushed", "beside", "newest"]
        tables = await store.describe_tables(["default.pushed.stream", "default.newest.stream"])
        return await registry.watermarks(names), await registry.shapes(names), tables

    watermarks, shapes, tables = bench.with_store(work)

    assert watermarks == {"pushed": 77, "beside": None, "newest": 77}
    assert [len(shapes[name]) for name in ("pushed", "beside", "newest")] == [1, 1, 0]
    assert tables == {
        "default.pushed.stream": TableSpec("default.pushed.stream"),
        "default.newest.stream": None,
    }


def test_a_changed_definition_keeps_the_streams_beginning(bench: Workbench) -> None:
    async def apply_at(store: OnlineStore, definitions: str, now_ns: int) -> int | None:
        repo = bench.define(definitions)
        await execute(await plan_apply(repo, store), store, clock_ns=lambda: now_ns)
        return (await Registry(store, "default").watermarks(["pushed"]))["pushed"]

    async def work(store: OnlineStore) -> list[int | None]:
        changes = [
            STREAMS,
            STREAMS.replace('["sum"]', '["sum", "max"]'),
            STREAMS.replace("alone, sums, ", "alone, sums, table='elsewhere', "),
            STREAMS.replace("user, alone, sums", "user, files, sums"),
            STREAMS,
        ]
        return [await apply_at(store, text, now_ns) for now_ns, text in enumerate(changes)]

    assert bench.with_store(work) == [0, 0, 2, None, 4]


def with_rows(bench: Workbench, definitions: str) -> None:
    """Apply the definitions, and materialize or compact all views."""
    repo = bench.define(definitions)
    bench.write("events.csv", "user_id,amount,kind,at\nu1,1,a,2025-12-31T00:00:00Z\n")
    bench.apply(repo)

    async def work(store: OnlineStore) -> None:
        settings = RefreshSettings(progress=False)
        runner = Clock(UNTIL_NS).eager("a")
        plans = [bench.plan(repo, name) for name in repo.views]
        files = [plan.name for plan in plans if plan.view.batch_source is not None]
        await materialize(repo, files, store, until_ns=UNTIL_NS, progress=False)
        streams = [plan for plan in plans if is_compacted(plan)]
        registry = Registry(store, "default")
        await compact_by_hand(streams, store, registry, until_ns=UNTIL_NS, settings=settings, runner=runner)

    bench.with_store(work)


def changes(bench: Workbench, definitions: str) -> list[str]:
    """Give what a plan says of the views that changed."""
    plan = planned(bench, bench.define(definitions))
    assert not plan.tables
    return [str(change) for change in plan.changes if change.state != "unchanged"]


ADDED = (
    'aggregates(amount, ["sum"], [days(7)])',
    'aggregates(amount, ["sum", "max"], [days(7)]) + aggregates(amount, ["sum"], [days(1)])',
)


def test_what_becomes_of_old_rows_and_of_what_was_pushed_is_said(bench: Workbench) -> None:
    with_rows(bench, STREAMS)

    lines = changes(bench, STREAMS.replace(*ADDED))

    added = "feature amount_max_7d_1h added; feature amount_sum_1d_1h added"
    null = "rows written before stay servable, with these features null: amount_max_7d_1h, amount_sum_1d_1h"
    before = "what was pushed before has no part in these features: amount_max_7d_1h"
    until = "what is pushed until every server has the new definition has no part in amount_max_7d_1h"
    assert lines == [
        f"view pushed: changed: {added}; {null}; {before}; must be compacted again",
        f"view beside: changed: {added}; {null}; {until}: materialize after; must be materialized again",
    ]


def test_removing_a_feature_leaves_all_others_as_they_are(bench: Workbench) -> None:
    with_rows(bench, STREAMS.replace(*ADDED))

    lines = changes(bench, STREAMS)

    assert lines == [
        f"view {view}: changed: feature amount_max_7d_1h removed; feature amount_sum_1d_1h removed; "
        f"rows written before stay servable; must be {verb} again"
        for view, verb in (("pushed", "compacted"), ("beside", "materialized"))
    ]


def test_a_feature_that_shares_components_is_servable_from_old_rows(bench: Workbench) -> None:
    with_rows(bench, STREAMS.replace('["sum"]', '["mean"]'))

    lines = changes(bench, STREAMS.replace('["sum"]', '["mean", "count"]'))

    assert [("stay servable; must be" in line, "null" in line) for line in lines] == [(True, False)] * 2


def test_pushed_attributes_need_no_job(bench: Workbench) -> None:
    with_rows(bench, STREAMS)
    changed = STREAMS.replace(
        '[Attribute("amount", Float64)]', '[Attribute("amount", Float64), Attribute("kind", String)]'
    )

    (line,) = changes(bench, changed)

    words = "rows written before stay servable, with these features null: kind"
    assert line == f"view newest: changed: feature kind added; {words}"


@pytest.mark.parametrize(
    "before, after, words",
    [
        (
            "sums, aggregation_interval=hours(1)",
            "sums, aggregation_interval=hours(2)",
            "aggregation interval",
        ),
        ("alone, sums, ", "alone, sums, horizon=days(1), ", "horizon"),
        ("both, sums, ", "both, sums, horizon=days(1), ", "horizon"),
    ],
)
def test_a_stream_is_not_cut_anew(bench: Workbench, before: str, after: str, words: str) -> None:
    bench.apply(bench.define(STREAMS))
    changed = bench.define(STREAMS.replace(before, after, 1))
    moved = STREAMS.replace(before, after.replace("sums, ", "sums, table='anew', ", 1), 1)

    with pytest.raises(DefinitionError, match=f"the {words} changed, and the blocks in default"):
        bench.apply(changed)

    bench.apply(bench.define(moved))


WIDE = """
    files = FileSource("events", "events.csv", timestamp_field="at")
    kind, amount = Field("kind", String), Field("amount", Float64)
    wide = FeatureView("wide", user, files, aggregation_interval=hours(1), features=[
        Aggregate(kind, last(3), TimeWindow(days(7))),
        Aggregate(amount, approx_percentile(percentile=0.5), TimeWindow(days(7))),
        Aggregate(amount, "sum", TimeWindowSeries(series_start=-days(3), window_size=days(1))),
    ])
    keyed = FeatureView("keyed", user, files, aggregation_interval=hours(1),
                        features=aggregates(amount, ["sum"], [days(7)]), aggregation_secondary_key=kind)
"""


@pytest.mark.parametrize(
    "before, after, lacking",
    [
        ("last(3)", "last(4)", ["kind_last_4_7d_1h"]),
        ("percentile=0.5", "percentile=0.9", []),  # percentiles of a column share one sketch
        ("-days(3)", "-days(2)", []),  # the windows of the series that are left are there
        ("-days(3)", "-days(4)", ["amount_sum_"]),
    ],
)
def test_wide_features_are_told_apart_by_what_they_are_made_of(
    bench: Workbench, before: str, after: str, lacking: list[str]
) -> None:
    with_rows(bench, WIDE)
    (line,) = changes(bench, WIDE.replace(before, after))
    assert ("null: " + ", ".join(lacking) in line) if lacking else "stay servable; must be" in line


def test_another_secondary_key_is_a_change(bench: Workbench) -> None:
    bench.apply(bench.define(WIDE))

    (line,) = changes(bench, WIDE.replace("secondary_key=kind", "secondary_key=None"))

    assert line.startswith("view keyed: changed: ")
