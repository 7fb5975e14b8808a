"""What Feast's API is answered from, compiled: views, services, read groups and keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import (
    Attribute,
    Entity,
    ExternalSource,
    FeastFormat,
    FeatureService,
    FeatureView,
    Field,
    Int64,
    String,
    Timestamp,
)
from fastserve.errors import DefinitionError
from fastserve.plan.feast_keys import NO_ENTITY, entity_key, feast_key
from fastserve.plan.keys import encode_key
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import Repo
from fastserve.sdk.types import DataType
from fastserve.wire.feast_key import FeastKeyForm, entity_id_of
from tests.support.feast_golden import feast_plan, golden
from tests.support.plans import USER, attribute_view, workspace_plan

FEAST = ExternalSource("feast")
DTYPES: dict[str, DataType] = {"STRING": String, "INT64": Int64, "INT32": Int64, "UNIX_TIMESTAMP": Timestamp}


def feast_view(name: str, table: str = "", **format_: Any) -> FeatureView:
    return FeatureView(
        name,
        entities=USER,
        source=FEAST,
        features=[Attribute("trips", Int64)],
        table=table or f"p.{name}",
        row_format=FeastFormat(**format_),
    )


def planned(views: list[FeatureView], services: list[FeatureService]) -> WorkspacePlan:
    by_name = {view.name: view for view in views}
    return plan_workspace(Repo(Path(), "w", {}, {}, by_name, {s.name: s for s in services}, {}))


def test_a_workspace_without_feasts_rows_has_nothing_of_it() -> None:
    assert workspace_plan({"s": [attribute_view("profile")]}).feast is None


def test_each_of_feasts_tables_is_read_by_itself_whatever_services_combine() -> None:
    plan = feast_plan()
    assert plan.feast is not None

    groups = {view.name: view.group for view in plan.feast.views.values()}
    assert {name: group.tables for name, group in groups.items()} == {
        name: (f"rides.{name}",) for name in ("driver_stats", "ride-pairs", "every_type", "totals")
    }
    assert all(group in plan.groups for group in groups.values())
    assert all(group.key_attributes == (("entity_id", "S"),) for group in groups.values())
    assert len(plan.services["ride-price.v1"].reads) == 2


def test_requests_may_name_join_keys_their_other_names_and_entities() -> None:
    feast = feast_plan().feast
    assert feast is not None

    assert feast.join_keys == {"driver_id", "rider_id", "city_code", "other_id", "__dummy_id"}
    assert feast.entities["driver"] == "driver_id"


def test_a_service_with_other_rows_says_why_it_is_not_served() -> None:
    own, theirs = attribute_view("own"), feast_view("theirs")
    plan = planned([own, theirs], [FeatureService("mixed", [own, theirs]), FeatureService("pure", [theirs])])
    assert plan.feast is not None

    assert set(plan.feast.services) == {"pure"}
    assert plan.feast.unserved == {"mixed": "view 'own' has rows that Feast didn't write"}


def test_two_views_of_one_name_with_feast_are_refused() -> None:
    with pytest.raises(DefinitionError, match="view 'b': expected a name of its own with Feast, got 'a'"):
        planned([feast_view("a"), feast_view("b", view="a")], [])


@pytest.mark.parametrize("number", range(len(golden("keys.json")["keys"])))
def test_key_texts_lead_to_the_ids_that_feast_computes(number: int) -> None:
    recorded = golden("keys.json")["keys"][number]
    types = tuple(kind for kind, _ in recorded["key"].values())
    texts = [
        encode_key([DTYPES.get(kind, String)], [value * 10**9 if kind == "UNIX_TIMESTAMP" else value])
        for kind, value in recorded["key"].values()
    ]

    key = feast_key(FeastKeyForm(tuple(recorded["key"]), types))(texts)
    assert orjson.loads(key) == {"entity_id": {"S": recorded["ids"]["3"]}}


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_a_key_of_texts_is_that_of_their_values(text: str, number: int) -> None:
    form = FeastKeyForm(("b", "a"), ("STRING", "INT64"))

    texts = [encode_key([String], [text]), encode_key([Int64], [number])]
    assert feast_key(form)(texts) == entity_key(entity_id_of(form)([text, number]))


@pytest.mark.parametrize(
    "kind,text",
    [
        ("STRING", "\\0"),
        ("INT64", "\\0"),
        ("INT32", str(2**31)),
        ("UNIX_TIMESTAMP", "1500000000"),
        ("BYTES", "no base64"),
    ],
)
def test_a_key_that_feast_cannot_have_written_is_absent(kind: str, text: str) -> None:
    assert feast_key(FeastKeyForm(("k",), (kind,)))([text]) == entity_key(NO_ENTITY)


def test_a_view_plan_makes_the_same_key() -> None:
    view = feast_plan().views["driver_stats"]

    assert orjson.loads(view.key_text([1])) == {
        "entity_id": {"S": golden("keys.json")["keys"][0]["ids"]["3"]}
    }
    assert view.packed is False
    assert replace(view).feast == FeastKeyForm(("driver_id",), ("INT64",), 3)


def test_a_ttl_needs_no_timestamp_field_as_items_have_one() -> None:
    driver = Entity("driver", Field("driver_id", Int64))
    view = FeatureView(
        "stats", driver, FEAST, [Attribute("a", Int64)], ttl=timedelta(days=1), table="p.stats",
        row_format=FeastFormat(),
    )  # fmt: skip

    assert planned([view], []).views["stats"].ttl_ns == 86_400 * 10**9
