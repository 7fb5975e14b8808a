from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fastserve import Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Float64, String
from fastserve.errors import DefinitionError
from fastserve.plan.reads import BYTES_PER_KEY, CachePolicy, TableUse, partition_tables
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import Repo

USER = Entity("user", Field("user_id", String))
SOURCE = FileSource("rows", path="x.csv", timestamp_field="at")


def view(name: str, bundle: str | None = "items", features: int = 3, table: str | None = None) -> FeatureView:
    made = [Attribute(f"f{number}", Float64) for number in range(features)]
    return FeatureView(name, USER, SOURCE, made, bundle=bundle, table=table)


def planned(views: list[FeatureView], services: dict[str, list[FeatureView]]) -> WorkspacePlan:
    made = {name: FeatureService(name, features=features) for name, features in services.items()}
    return plan_workspace(Repo(Path(), "w", {}, {}, {v.name: v for v in views}, made, {}), "p_")


def use(attribute: str, *, size: int = 100, table: str = "b", pushed: bool = False) -> TableUse:
    key = (("k", "S"),)
    return TableUse(table, 0, key, True, pushed=pushed, attribute=attribute, row_bytes=size)


def test_views_of_a_bundle_lie_in_its_table_each_in_an_attribute() -> None:
    a, b, alone = view("a"), view("b"), view("alone", None)
    plan = planned([a, b, alone], {"all": [a, b, alone], "one": [b]})
    assert [(p.name, p.table, p.attribute) for p in plan.views.values()] == [
        ("a", "p_w.items", "v:a"),
        ("b", "p_w.items", "v:b"),
        ("alone", "p_w.alone", None),
    ]
    assert plan.services["all"].key_count == 2
    (read,) = plan.services["one"].reads
    assert read.group.attributes == ("v:a", "v:b")
    (place,) = plan.services["one"].places
    assert (place.slot, place.number, place.word) == (1, 0, 0)
    assert plan.bundles["p_w.items"].name == "items"


def test_one_item_is_one_group_whatever_services_read_of_it() -> None:
    services = [[use("v:a"), use("v:b")], [use("v:b")], [use("v:c"), TableUse("t", 0, (("k", "S"),), True)]]
    table, bundle = partition_tables(services, {"b": 300})
    assert (table.tables, table.attributes, table.weight) == (("t",), (), 1)
    assert (bundle.tables, bundle.attributes, bundle.size) == (("b",), ("v:a", "v:b", "v:c"), 1)
    assert bundle.row_places == (("b", "v:a"), ("b", "v:b"), ("b", "v:c"))


def test_a_bundle_is_read_consistently_if_anything_read_of_it_is_pushed_to() -> None:
    assert not partition_tables([[use("v:a"), use("v:b")]])[0].pushed
    assert partition_tables([[use("v:a")], [use("v:b", pushed=True)]])[0].pushed


def test_large_items_take_as_much_of_a_call_as_they_move() -> None:
    (small,) = partition_tables([[use("v:a", size=4000)]], {"b": 4000})
    (large,) = partition_tables([[use("v:a", size=80_000)]], {"b": 100_000})
    (projected,) = partition_tables([[use("v:a", size=9_000)]], {"b": 100_000})
    (huge,) = partition_tables([[use("v:a", size=300_000)]], {"b": 380_000})
    assert [group.weight for group in (small, large, projected, huge)] == [1, 25, 3, 50]
    assert [group.projected for group in (small, large, projected, huge)] == [False, False, True, False]
    assert 100_000 / BYTES_PER_KEY < 25


def test_views_of_a_bundle_must_agree_on_keys_and_cache_also_without_a_folder() -> None:
    shop = Entity("shop", Field("shop_id", String))
    other = FeatureView("b", shop, SOURCE, [Attribute("f", Float64)], bundle="items")
    with pytest.raises(
        DefinitionError, match=r"FeatureView 'b': bundle 'items' \(expected the join keys of 'a'"
    ):
        planned([view("a"), other], {})
    kept = FeatureView(
        "c", USER, SOURCE, [Attribute("f", Float64)], bundle="items", cache_ttl=timedelta(minutes=5)
    )
    with pytest.raises(DefinitionError, match="cache_ttl None, stale_ttl None, got cache_ttl 5m"):
        planned([view("a"), kept], {})


def test_the_table_of_a_bundle_is_no_view_s() -> None:
    with pytest.raises(DefinitionError, match=r"'alone': expected a table of its own, got 'p_w\.items'"):
        planned([view("a"), view("alone", None, table="p_w.items")], {})


def test_a_bundle_is_cached_as_its_views_are() -> None:
    ttl, stale = timedelta(seconds=5), timedelta(seconds=9)
    made = [
        FeatureView(
            name, USER, SOURCE, [Attribute("f", Float64)], bundle="items", cache_ttl=ttl, stale_ttl=stale
        )
        for name in ("a", "b")
    ]
    (group,) = planned(made, {"s": made}).groups
    assert group.cache == CachePolicy(5 * 10**9, 9 * 10**9)
