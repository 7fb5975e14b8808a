"""The on-demand part of a plan: what is read for it, where its inputs stand, and in which order it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastserve.plan.explain import explain
from fastserve.plan.explain_text import explain_text
from fastserve.plan.on_demand import InputsBinding, OnDemandBinding, OnDemandOutput, RequestBinding
from fastserve.plan.service import Output, ServicePlan, WorkspacePlan, plan_workspace
from fastserve.sdk.repo import load_repo
from tests.support.shop_repo import DEFINITIONS, write_shop_repo

COMPUTED = """
request = fs.RequestSource(schema=[fs.Field("amount", fs.Float64), fs.Field("items", fs.Array(fs.String))])
more = fs.RequestSource(schema=[fs.Field("hour", fs.Int64), fs.Field("amount", fs.Float64)], name="more")
payer = profile[["age", "city"]]
payee = payer.with_name("payee").with_join_key_map({"user_id": "payee_id"})


@fs.on_demand_feature_view(
    sources=[request, spending[["amount_mean_28d_1h", "amount_count_28d_1h"]]],
    features=[
        fs.Attribute("ratio", fs.Float64, description="In usual amounts", tags={"owner": "risk"}),
        fs.Attribute("first", fs.Bool),
        fs.Calculation("rounded", "amount / 10"),
    ],
)
def unusual(request, spending):
    return {"ratio": None, "first": None}


@fs.on_demand_feature_view(
    sources=[payer, payee, unusual[["first", "ratio"]], more],
    features=[fs.Attribute("same_city", fs.Bool)],
    mode="numpy",
    time_limit=timedelta(milliseconds=50),
    isolation="process",
)
def pairing(payer, payee, unusual, more):
    return {"same_city": None}


early = fs.OnDemandFeatureView("early", more, [fs.Calculation("is_early", "hour < 6")])
"""
SERVICES = """
all_of_it = fs.FeatureService(
    "all", features=[shop, pairing, profile[["city"]], unusual[["rounded", "ratio"]].with_name("b_unusual")]
)
one = fs.FeatureService("one", features=[pairing])
twice = fs.FeatureService(
    "twice", features=[unusual.with_name("b"), unusual[["first"]].with_name("a"), early]
)
no_reads = fs.FeatureService("no_reads", features=[early])
"""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> WorkspacePlan:
    folder = write_shop_repo(tmp_path_factory.mktemp("shop"), DEFINITIONS + COMPUTED + SERVICES)
    return plan_workspace(load_repo(folder))


@pytest.fixture
def everything(plans: WorkspacePlan) -> ServicePlan:
    return plans.services["all"]


def test_the_answer_has_on_demand_views_first_each_in_schema_order(everything: ServicePlan) -> None:
    assert [output.name for output in everything.outputs] == [
        "b_unusual.ratio",
        "b_unusual.rounded",
        "pairing.same_city",
        "profile.city",
        "shop.rating",
    ]
    computed = [output for output in everything.outputs if isinstance(output, OnDemandOutput)]
    assert [(output.view, output.plan, output.field) for output in computed] == [
        ("b_unusual", 0, 0),
        ("b_unusual", 0, 2),
        ("pairing", 1, 0),
    ]
    ratio = computed[0]
    assert (str(ratio.dtype), ratio.description, dict(ratio.tags)) == (
        "float64",
        "In usual amounts",
        {"owner": "risk"},
    )
    for output in computed:
        field = everything.on_demand[output.plan].output_fields[output.field]
        assert (field.name, field.dtype) == (output.feature, output.dtype)


def test_inputs_are_what_the_answer_holds_and_then_what_only_functions_take(everything: ServicePlan) -> None:
    assert [output.name for output in everything.inputs] == [
        "profile.city",
        "shop.rating",
        "spending.amount_mean_28d_1h",
        "spending.amount_count_28d_1h",
        "profile.age",
        "payee.age",
        "payee.city",
    ]
    assert everything.visible_inputs == 2
    assert everything.outputs[-2:] == everything.inputs[:2]


def test_hidden_sources_have_their_keys_reads_and_places(everything: ServicePlan) -> None:
    assert [key.name for key in everything.join_keys] == ["merchant_id", "user_id", "payee_id"]
    read = {
        (place.view.name, tuple(everything.join_keys[key].name for key in everything.reads[place.read].keys))
        for place in everything.places
    }
    assert read == {
        ("shop", ("merchant_id",)),
        ("profile", ("user_id",)),
        ("spending", ("user_id",)),
        ("profile", ("payee_id",)),
    }
    for output in everything.inputs:
        keys = everything.reads[everything.places[output.place].read].keys
        assert [everything.join_keys[key].name for key in keys] == [
            {"shop": "merchant_id", "payee": "payee_id"}.get(output.view, "user_id")
        ]


def test_views_run_after_those_that_they_read_and_their_sources_are_bound(everything: ServicePlan) -> None:
    unusual, pairing = everything.on_demand
    assert [str(field) for field in everything.context_fields] == [
        "amount: float64",
        "items: array<string>",
        "hour: int64",
    ]
    assert (unusual.name, unusual.visible, unusual.is_hidden) == ("unusual", (0, 2), False)
    request, spending = unusual.sources
    assert request == RequestBinding("request", everything.context_fields[:2], (0, 1))
    assert spending == InputsBinding("spending", ("amount_mean_28d_1h", "amount_count_28d_1h"), (2, 3))
    payer, payee, first, more = pairing.sources
    assert payer == InputsBinding("profile", ("age", "city"), (4, 0))
    assert payee == InputsBinding("payee", ("age", "city"), (5, 6))
    assert first == OnDemandBinding("unusual", ("first", "ratio"), 0, (1, 0))
    assert isinstance(more, RequestBinding)
    assert ([field.name for field in more.fields], more.positions) == (["hour", "amount"], (2, 0))


def test_a_view_that_only_another_reads_runs_and_is_not_answered(plans: WorkspacePlan) -> None:
    plan = plans.services["one"]
    assert [output.name for output in plan.outputs] == ["pairing.same_city"]
    assert plan.visible_inputs == 0
    assert [(each.name, each.visible, each.is_hidden) for each in plan.on_demand] == [
        ("unusual", (), True),
        ("pairing", (0,), False),
    ]


def test_a_view_under_two_names_runs_once(plans: WorkspacePlan) -> None:
    plan = plans.services["twice"]
    assert [output.name for output in plan.outputs] == [
        "a.first",
        "b.ratio",
        "b.first",
        "b.rounded",
        "early.is_early",
    ]
    assert [(each.name, each.visible) for each in plan.on_demand] == [("unusual", (0, 1, 2)), ("early", (0,))]
    assert [output.plan for output in plan.outputs if isinstance(output, OnDemandOutput)] == [0, 0, 0, 0, 1]


def test_a_service_without_reads_has_a_plan(plans: WorkspacePlan) -> None:
    plan = plans.services["no_reads"]
    assert (plan.reads, plan.places, plan.inputs, plan.join_keys, plan.key_count) == ((), (), (), (), 0)
    assert [field.name for field in plan.context_fields] == ["hour", "amount"]


@pytest.mark.parametrize("name", ["fraud:v2", "users"])
def test_a_service_without_on_demand_views_answers_what_it_reads(plans: WorkspacePlan, name: str) -> None:
    plan = plans.services[name]
    assert plan.outputs == plan.inputs
    assert plan.visible_inputs == len(plan.inputs)
    assert all(isinstance(output, Output) for output in plan.outputs)
    assert (plan.on_demand, plan.context_fields) == ((), ())


def test_tables_that_only_functions_read_are_grouped_as_well(plans: WorkspacePlan) -> None:
    tables = [table for group in plans.groups for table in group.tables]
    assert sorted(tables) == sorted(set(tables))
    assert {"shop.profile", "shop.spending", "legacy_shops"} <= set(tables)


def test_an_explanation_tells_what_is_computed(everything: ServicePlan) -> None:
    explanation = explain(everything)
    text = explain_text(explanation)
    assert "Request context: amount: float64, items: array<string>, hour: int64\n" in text
    computed = text.partition("On-demand views, in the order in which they are computed\n")[2]
    assert computed.splitlines()[:3] == [
        "  view     mode    runs     time limit  features  answered  sources",
        "  unusual  python  inline                      3         2  request, spending",
        "  pairing  numpy   process  50ms               1         1  profile, payee, unusual, more",
    ]
    assert "1  b_unusual.ratio    float64  python function unusual" in text
    assert "2  b_unusual.rounded  float64  amount / 10 of unusual" in text
    document = json.loads(json.dumps(explanation.to_json()))
    assert document["request_context"][2] == {"name": "hour", "dtype": "int64"}
    assert document["computed"][1]["time_limit"] == "50ms"


def test_an_explanation_of_a_service_without_reads_has_no_empty_tables(plans: WorkspacePlan) -> None:
    text = explain_text(explain(plans.services["no_reads"]))
    assert "Join keys" not in text
    assert "Reads (" not in text
    assert "keys        0 in 0 reads, 0 BatchGetItem calls" in text
    assert "  early  calculations  inline" in text


def test_a_repo_with_a_hidden_view_explains_only_its_own_rows(tmp_path: Path) -> None:
    services = '\nonly = fs.FeatureService("only", features=[unusual])\n'
    plan = plan_workspace(load_repo(write_shop_repo(tmp_path, DEFINITIONS + COMPUTED + services)))
    explanation = explain(plan.services["only"])
    assert [(row.view, row.features) for row in explanation.rows] == [("spending", 2)]
