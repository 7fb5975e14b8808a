"""Views that name a store: their tables' names, their groups, what is said where it isn't configured."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.plan.explain import explain
from fastserve.plan.explain_text import explain_text
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.plan.stores import TablePrefixes
from fastserve.sdk.features import Aggregate, Attribute
from fastserve.sdk.repo import Repo
from fastserve.sdk.service import FeatureService
from fastserve.sdk.sources import PushSource
from fastserve.sdk.types import Field, Int64, String, Timestamp
from fastserve.sdk.views import FeatureView
from tests.support.plans import EVENTS, USER

AMOUNT = Field("amount", Int64)
PUSHED = PushSource("p", [Field("user_id", String), AMOUNT, Field("at", Timestamp)], timestamp_field="at")
PREFIXES = TablePrefixes("prod.", {"hot": "hot.", "other": ""})


def planned(prefixes: TablePrefixes | str = PREFIXES) -> WorkspacePlan:
    profile = FeatureView("profile", USER, EVENTS, [Attribute("age", Int64)])
    risk = FeatureView("risk", USER, EVENTS, [Attribute("score", Int64)], store="hot")
    spend = FeatureView(
        "spend",
        USER,
        PUSHED,
        [Aggregate(AMOUNT, "sum", timedelta(days=1))],
        aggregation_interval=timedelta(hours=1),
        store="hot",
    )
    views = {view.name: view for view in (profile, risk, spend)}
    services = {
        "all": FeatureService("all", features=[profile, risk, spend]),
        "main": FeatureService("main", features=[profile]),
    }
    return plan_workspace(Repo(Path(), "w", {}, {}, views, services, {}), prefixes)


def test_tables_are_named_after_their_store_s_prefix() -> None:
    plan = planned()
    assert [view.tables for view in plan.views.values()] == [
        ("prod.w.profile",),
        ("hot.w.risk",),
        ("hot.w.spend", "hot.w.spend.stream"),
    ]
    assert plan.homes == dict.fromkeys(("hot.w.risk", "hot.w.spend", "hot.w.spend.stream"), "hot")


def test_a_service_reads_each_store_with_groups_of_its_own() -> None:
    plan = planned()
    assert plan.services["all"].stores == {"", "hot"}
    assert plan.services["main"].stores == {""}
    for group in plan.groups:
        assert {plan.homes.get(table, "") for table in group.tables} == {group.store}


def test_a_store_that_is_not_configured_is_named_with_where_to_set_it() -> None:
    with pytest.raises(DefinitionError) as caught:
        planned("prod.")
    assert caught.value.message == (
        "view 'risk': store: expected one that is configured (none), got 'hot'; set it by --store hot=URL, "
        "in FASTSERVE_STORES or in [stores] of fastserve.toml"
    )
    with pytest.raises(DefinitionError, match=r"configured \('cold', 'warm'\), got 'hot'"):
        planned(TablePrefixes("", {"warm": "", "cold": ""}))


def test_explain_tells_the_store_of_each_read_and_counts_calls_by_store() -> None:
    explanation = explain(planned().services["all"])
    assert {read.store for read in explanation.reads} == {None, "hot"}
    assert explanation.calls == 2
    text = explain_text(explanation)
    assert "hot.w.risk, hot.w.spend (store 'hot')" in text
    assert "hot.w.spend.stream (the current block, store 'hot')" in text


def test_reads_and_writes_of_stores_that_charge_nothing_have_no_units() -> None:
    plan = planned().services["all"]
    (profile, risk, spend), usual = explain(plan, unpriced=["hot"]).rows, explain(plan).rows
    assert profile == usual[0]
    assert [(row.read_units, row.write_units, row.priced) for row in (risk, spend)] == [(0, 0, False)] * 2
    partly = explain(plan, unpriced=["hot", "other"])
    assert (partly.unpriced_stores, partly.keys) == (("hot",), explain(plan).keys)
    assert partly.read_units == profile.read_units
    assert (partly.streams[0].read_units, partly.streams[0].write_units) == (0, 0)
    text = explain_text(partly)
    assert "  read units  0.5, eventually consistent" in text
    assert "  no price    store 'hot': Redis charges nothing for reads and writes" in text
    entirely = explain(plan, unpriced=["", "hot"])
    assert (entirely.is_priced, entirely.price_per_million_vectors_usd, entirely.bundles) == (False, 0, ())
    text = explain_text(entirely)
    assert "the main store, store 'hot': Redis charges" in text
    assert "USD" not in text
    assert "units per started" not in text


def test_views_of_different_stores_are_no_bundle_to_be() -> None:
    profile = FeatureView("profile", USER, EVENTS, [Attribute("age", Int64)])
    risk = FeatureView("risk", USER, EVENTS, [Attribute("score", Int64)], store="hot")
    beside = FeatureView("beside", USER, EVENTS, [Attribute("other", Int64)], store="hot")
    views = {view.name: view for view in (profile, risk, beside)}
    services = {"all": FeatureService("all", features=list(views.values()))}
    plan = plan_workspace(Repo(Path(), "w", {}, {}, views, services, {}), PREFIXES)
    (cost,) = explain(plan.services["all"]).bundles
    assert sorted(cost.views) == ["beside", "risk"]
    assert explain(plan.services["all"], unpriced=["hot"]).bundles == ()


def test_a_bundle_that_is_charged_nothing_saves_keys_alone() -> None:
    views = {
        name: FeatureView(name, USER, EVENTS, [Attribute("age", Int64)], store="hot", bundle="items")
        for name in ("one", "two")
    }
    services = {"all": FeatureService("all", features=list(views.values()))}
    plan = plan_workspace(Repo(Path(), "w", {}, {}, views, services, {}), PREFIXES)
    explanation = explain(plan.services["all"], unpriced=["hot"])
    (cost,) = explanation.bundles
    assert (explanation.keys, cost.keys, cost.priced) == (1, 1, False)
    assert (cost.read_units, cost.apart_read_units, cost.refresh_units, cost.pays_from) == (0, 0, 0, None)
    text = explain_text(explanation)
    assert "bundle items saves keys alone: Redis charges nothing" in text
    assert "never pays" not in text


@pytest.mark.parametrize("name", ["", "a b", "a=b", 5, "x" * 121])
def test_a_store_s_name_is_a_name(name: object) -> None:
    with pytest.raises(DefinitionError, match="store"):
        FeatureView("v", USER, EVENTS, [Attribute("age", Int64)], store=name)  # type: ignore[arg-type]
