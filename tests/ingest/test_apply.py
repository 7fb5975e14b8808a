"""What applying a repo does to a store, said before it is done."""

from __future__ import annotations

import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest.apply import ApplyPlan, execute, plan_apply
from fastserve.ingest.registry import Registry
from fastserve.sdk.repo import Repo
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec
from tests.ingest.support import Workbench

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
