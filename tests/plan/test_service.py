from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.plan.service import ServicePlan, WorkspacePlan, plan_workspace
from fastserve.sdk.repo import Repo, load_repo
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import WORD_BYTES, Column
from fastserve.tiles.merge import CONSTANT_BITS
from tests.support.shop_repo import DEFINITIONS, write_shop_repo


@pytest.fixture
def fraud(shop_plan: WorkspacePlan) -> ServicePlan:
    return shop_plan.services["fraud:v2"]


def test_the_plan_has_the_repo_s_workspace_or_the_one_it_is_told(
    shop_repo: Repo, shop_plan: WorkspacePlan
) -> None:
    assert shop_plan.workspace == "shop"
    assert shop_plan.views["profile"].table == "p_shop.profile"
    other = plan_workspace(shop_repo, workspace="canary")
    assert (other.workspace, other.services["users"].workspace) == ("canary", "canary")
    assert other.views["profile"].table == "canary.profile"


def test_join_keys_stand_in_the_order_in_which_the_service_meets_them(fraud: ServicePlan) -> None:
    assert [field.name for field in fraud.join_keys] == ["user_id", "payee_id", "merchant_id"]


def test_each_key_of_each_group_is_read_once(fraud: ServicePlan) -> None:
    assert [(read.group.tables, read.keys) for read in fraud.reads] == [
        (("p_shop.profile",), (0,)),
        (("p_shop.spending",), (0,)),
        (("p_shop.spending",), (1,)),
        (("p_shop.pair",), (0, 2)),
        (("legacy_shops",), (2,)),
    ]
    assert fraud.key_count == 5


def test_a_view_read_under_two_keys_has_two_places_and_twice_under_one_key_one(
    shop_plan: WorkspacePlan, tmp_path: Path
) -> None:
    views = [place.view.name for place in shop_plan.services["fraud:v2"].places]
    assert views == ["profile", "spending", "spending", "pair", "shop"]
    twice = """
again = fs.FeatureService(name="again", features=[profile[["age"]], profile[["city"]].with_name("where")])
"""
    plan = plan_workspace(load_repo(write_shop_repo(tmp_path, DEFINITIONS + twice))).services["again"]
    assert [place.view.name for place in plan.places] == ["profile"]
    assert [output.name for output in plan.outputs] == ["profile.age", "where.city"]
    assert [output.place for output in plan.inputs] == [0, 0]


@pytest.mark.parametrize("name", ["fraud:v2", "users"])
def test_places_lie_side_by_side_in_the_order_in_which_a_store_fills_them(
    shop_plan: WorkspacePlan, name: str
) -> None:
    plan = shop_plan.services[name]
    filled = [(number, slot) for number, read in enumerate(plan.reads) for slot in range(read.group.size)]
    assert [(place.read, place.slot) for place in plan.places] == filled
    word = 0
    for number, place in enumerate(plan.places):
        assert (place.number, place.word) == (number, word)
        assert plan.reads[place.read].group.tables[place.slot] == place.view.table
        word += place.view.layout.fixed_words
    assert plan.constants_word == word
    assert plan.words == word + len(CONSTANT_BITS)
    assert plan.row_bytes == word * WORD_BYTES


def test_outputs_are_ordered_by_the_names_of_view_and_feature_and_come_from_their_own_place(
    fraud: ServicePlan,
) -> None:
    names = [output.name for output in fraud.outputs]
    assert names == sorted(names)
    assert names[0] == "pair.amount_max_7d_1h"
    for output in fraud.inputs:
        view = fraud.places[output.place].view
        if isinstance(output.source, Column):
            assert output.source is view.layout.by_name[output.feature]
        else:
            assert isinstance(output.source, AggregateFeature)
            assert output.source.spec.name == output.feature
            assert view.schema is not None
            assert output.source in view.schema.features
    (payee,) = [output for output in fraud.inputs if output.view == "payee_spending"]
    assert fraud.reads[fraud.places[payee.place].read].keys == (1,)


def test_outputs_carry_what_the_metadata_says(fraud: ServicePlan) -> None:
    (age,) = [output for output in fraud.outputs if output.name == "profile.age"]
    assert (str(age.dtype), age.description, dict(age.tags)) == (
        "int64",
        "Years since birth",
        {"owner": "risk"},
    )


def test_groups_are_the_workspace_s_and_cut_for_all_services(shop_plan: WorkspacePlan) -> None:
    assert [group.index for group in shop_plan.groups] == list(range(len(shop_plan.groups)))
    (users,) = shop_plan.services["users"].reads
    assert users.group is shop_plan.services["fraud:v2"].reads[0].group


def test_two_views_of_one_table_are_refused_at_the_second_s_line(tmp_path: Path) -> None:
    clash = """
other = fs.FeatureView(
    name="other", entities=user, source=people, features=[fs.Attribute("age", fs.Int64)], table="shop.profile"
)
"""
    repo = load_repo(write_shop_repo(tmp_path, DEFINITIONS + clash))
    with pytest.raises(DefinitionError) as caught:
        plan_workspace(repo)
    assert "view 'other': expected a table of its own, got 'shop.profile', which view 'profile' has" in str(
        caught.value
    )
    assert caught.value.location is not None


def test_a_repo_without_services_has_a_plan_without_services(tmp_path: Path) -> None:
    definitions = DEFINITIONS.split("fraud = ", maxsplit=1)[0]
    plan = plan_workspace(load_repo(write_shop_repo(tmp_path, definitions)))
    assert (dict(plan.services), plan.groups) == ({}, ())
    assert set(plan.views) == {"profile", "spending", "pair", "shop"}
