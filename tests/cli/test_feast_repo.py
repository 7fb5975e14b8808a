"""Definitions of Feast's, written as ours: what is kept, what is renamed, what is left out and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastserve.cli.feast_repo import FEATURE_TYPES, FeastTables, write_repo
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import load_repo
from fastserve.wire.feast_registry import (
    VALUE_TYPES,
    FeastEntity,
    FeastField,
    FeastProjection,
    FeastRegistry,
    FeastService,
    FeastView,
)

TABLES = FeastTables("p")
DRIVER = FeastEntity("driver", "driver_id", "INT64")
VIEW = FeastView(
    name="stats",
    project="p",
    entities=("driver",),
    features=(FeastField("trips", "INT64"), FeastField("rate", "DOUBLE")),
    join_keys=(FeastField("driver_id", "INT64"),),
    ttl_ns=0,
    online=True,
    disabled=False,
    version=0,
)


def registry(
    *views: FeastView, services: tuple[FeastService, ...] = (), entities: tuple[FeastEntity, ...] = (DRIVER,)
) -> FeastRegistry:
    return FeastRegistry(entities, views, services, (), ("p",))


def service(*projections: FeastProjection, name: str = "s") -> FeastService:
    return FeastService(name, "p", projections)


def projection(
    view: str = "stats",
    alias: str = "",
    features: tuple[str, ...] = ("trips",),
    keys: dict[str, str] | None = None,
    version: int | None = None,
) -> FeastProjection:
    return FeastProjection(view, alias, features, keys or {}, version)


def planned(tmp_path: Path, found: FeastRegistry, tables: FeastTables = TABLES) -> WorkspacePlan:
    written = write_repo(found, tables, 'What "Feast" has.')
    assert not written.left_out
    (tmp_path / "features.py").write_text(written.text, encoding="utf-8")
    return plan_workspace(load_repo(tmp_path), "", "p")


def left_out(*views: FeastView, services: tuple[FeastService, ...] = ()) -> list[str]:
    return write_repo(registry(*views, services=services), TABLES, "x").left_out


def test_a_ttl_that_no_int64_of_nanoseconds_holds_is_told() -> None:
    assert left_out(replace(VIEW, ttl_ns=2**80)) == ["view stats: its ttl is longer than 36500d"]


def test_label_views_are_left_out_by_name() -> None:
    found = replace(registry(VIEW), label_views=("opinions",))
    assert write_repo(found, TABLES, "x").left_out == ["label view opinions: labels aren't served"]


@pytest.mark.parametrize(
    "ttl_ns,text",
    [
        (86_400 * 10**9, "timedelta(days=1)"),
        (5_400 * 10**9, "timedelta(minutes=90)"),
        (1_500_000_000, "timedelta(microseconds=1500000)"),
        (1, "timedelta(microseconds=1)"),
    ],
)
def test_a_ttl_is_written_in_the_largest_unit(ttl_ns: int, text: str) -> None:
    assert f"ttl={text}," in write_repo(registry(replace(VIEW, ttl_ns=ttl_ns)), TABLES, "x").text


def test_every_type_of_feasts_has_one_of_ours(tmp_path: Path) -> None:
    features = tuple(FeastField(f"f{number}", kind) for number, kind in VALUE_TYPES.items())
    plan = planned(tmp_path, registry(replace(VIEW, features=features)))
    types = {feature.name: str(feature.dtype) for feature in plan.views["stats"].view.attributes}

    assert types["f6"] == "float32"
    assert types["f18"] == "array<timestamp>"
    assert types["f24"] == "array<int64>"
    assert types["f20"] == types["f42"] == types["f47"] == "string"
    assert set(FEATURE_TYPES) <= set(VALUE_TYPES.values())


def test_names_that_are_none_of_ours_are_kept_beside_ours(tmp_path: Path) -> None:
    odd = replace(VIEW, name="1-stats", features=(FeastField("a b", "INT64"), FeastField("class", "INT64")))
    plan = planned(tmp_path, registry(odd, replace(VIEW, name="1_stats"), replace(VIEW, name="Entity")))
    assert plan.feast is not None

    assert set(plan.views) == {"_1_stats", "_1_stats_2", "Entity"}
    assert set(plan.feast.views) == {"1-stats", "1_stats", "Entity"}
    assert plan.feast.views["1-stats"].features == ("a b", "class")
    assert plan.views["_1_stats"].table == "p.1-stats"


def test_an_entity_of_two_types_is_two_of_ours(tmp_path: Path) -> None:
    text = replace(VIEW, name="texts", join_keys=(FeastField("driver_id", "STRING"),))
    small = replace(VIEW, name="smalls", join_keys=(FeastField("driver_id", "INT32"),))
    plan = planned(tmp_path, registry(VIEW, text, small))

    assert [plan.views[name].key_fields[0].dtype.to_api()["type"] for name in plan.views] == [
        "int64",
        "string",
        "int64",
    ]
    forms = {name: view.feast for name, view in plan.views.items()}
    assert {name: form.types for name, form in forms.items() if form} == {
        "stats": ("INT64",),
        "texts": ("STRING",),
        "smalls": ("INT32",),
    }
    assert plan.views["stats"].view.entities[0] is plan.views["smalls"].view.entities[0]


def test_an_older_registry_has_join_key_types_in_its_entities(tmp_path: Path) -> None:
    plan = planned(tmp_path, registry(replace(VIEW, join_keys=())))

    form = plan.views["stats"].feast
    assert form is not None
    assert form.types == ("INT64",)


def test_tables_and_keys_are_those_of_the_configuration(tmp_path: Path) -> None:
    tables = FeastTables("p", 2, "{project}-{table_name}", versioned=True)
    plan = planned(tmp_path, registry(replace(VIEW, version=3)), tables)

    assert plan.views["stats"].table == "p-stats_v3"
    form = plan.views["stats"].feast
    assert form is not None
    assert form.version == 2


def test_a_service_reads_what_its_projections_say(tmp_path: Path) -> None:
    both = service(projection(), projection(alias="other", features=("rate",), keys={"driver_id": "id_2"}))
    plan = planned(tmp_path, registry(VIEW, services=(both,)))
    assert plan.feast is not None

    selections = plan.feast.services["s"]
    assert [(each.name, each.features, each.request_keys) for each in selections] == [
        ("stats", ("trips",), ("driver_id",)),
        ("other", ("rate",), ("id_2",)),
    ]


@pytest.mark.parametrize(
    "view,why",
    [
        (replace(VIEW, online=False), "it isn't online"),
        (replace(VIEW, disabled=True), "it is disabled"),
        (replace(VIEW, features=()), "it has no features"),
        (replace(VIEW, entities=()), "it has no entities"),
        (replace(VIEW, entities=("rider",)), "the registry lacks its entity 'rider'"),
        (
            replace(VIEW, join_keys=(FeastField("driver_id", "DOUBLE"),)),
            "Feast makes no keys of its join key 'driver_id' of type DOUBLE",
        ),
        (
            replace(VIEW, features=(FeastField("driver_id", "INT64"),)),
            "its feature 'driver_id' has the name of another or of a join key",
        ),
        (
            replace(VIEW, features=(FeastField("a b", "INT64"), FeastField("a_b", "INT64"))),
            "its feature 'a_b' has the name of another or of a join key",
        ),
    ],
)
def test_a_view_that_cannot_be_served_is_left_out_and_told(view: FeastView, why: str) -> None:
    assert left_out(view) == [f"view stats: {why}"]


@pytest.mark.parametrize(
    "made,why",
    [
        (service(projection("fares")), "service s: its view 'fares' is left out"),
        (service(projection(version=2)), "service s: it reads version 2 of view 'stats'"),
        (service(projection(), projection()), "service s: it reads view 'stats' twice under one name"),
        (service(projection(features=("gone",))), "service s: view 'stats' has no feature 'gone' any more"),
        (service(projection(features=())), "service s: it reads no feature of view 'stats'"),
        (service(projection(alias="a b")), "service s: the name 'a b' isn't one of letters, digits and _"),
        (
            service(projection(keys={"driver_id": "a b"})),
            "service s: its view 'stats' has a join key that isn't a name of letters, digits and _",
        ),
        (
            service(projection(), name="a b"),
            "service a b: its name isn't one of a letter, then letters, digits and _ . : -",
        ),
        (service(), "service s: it has no features"),
    ],
)
def test_a_service_that_cannot_be_served_is_left_out_and_told(made: FeastService, why: str) -> None:
    assert left_out(VIEW, services=(made,)) == [why]


def test_texts_of_authors_do_not_become_code(tmp_path: Path) -> None:
    evil = 'x")\nraise SystemExit("""'
    view = replace(VIEW, description=evil, tags={evil: evil}, owner=evil)
    plan = planned(tmp_path, registry(view))

    assert plan.views["stats"].view.description == evil
    assert plan.views["stats"].view.tags == {evil: evil}
