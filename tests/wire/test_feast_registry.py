"""The registry that Feast wrote, read without Feast."""

from __future__ import annotations

import pytest

from fastserve.wire.feast_registry import FeastEntity, FeastField, FeastProjection, read_registry
from fastserve.wire.protobuf import ProtobufError
from tests.support.feast_golden import FOLDER, registry

DAY_NS = 86_400 * 10**9


def test_views_come_with_all_that_serving_needs() -> None:
    views = {view.name: view for view in registry().views}
    stats = views["driver_stats"]

    assert set(views) == {"driver_stats", "ride-pairs", "every_type", "totals", "offline_only"}
    assert (stats.entities, stats.ttl_ns, stats.online, stats.disabled) == (("driver",), DAY_NS, True, False)
    assert stats.join_keys == (FeastField("driver_id", "INT64"),)
    assert stats.features[0] == FeastField("conv_rate", "FLOAT", "Accepted of offered", {"unit": "share"})
    assert (stats.description, stats.owner) == ("What a driver did lately", "rides@example.org")
    assert stats.tags == {"team": "rides"}
    assert views["ride-pairs"].ttl_ns == 0
    assert not views["offline_only"].online
    assert views["totals"].entities == ("__dummy",)


def test_every_value_type_has_its_name() -> None:
    (view,) = (view for view in registry().views if view.name == "every_type")
    types = {field.name: field.value_type for field in view.features}

    assert types["raw"] == "BYTES"
    assert types["map"] == "MAP"
    assert types["bag"] == "STRING_SET"
    assert types["moments"] == "UNIX_TIMESTAMP_LIST"
    assert types["table"] == "VALUE_LIST"


def test_entities_and_services_are_there() -> None:
    found = registry()
    services = {service.name: service for service in found.services}

    assert FeastEntity("driver", "driver_id", "INT64") in found.entities
    assert found.on_demand_views == ("fares",)
    assert found.projects == ("rides",)
    assert services["ride-price.v1"].tags == {"model": "price"}
    assert services["both_drivers"].projections == (
        FeastProjection("driver_stats", "first", ("trips",), {}, None),
        FeastProjection("driver_stats", "other", ("trips", "name"), {"driver_id": "other_id"}, None),
    )


def test_label_views_are_told_by_name() -> None:
    # Those of two projects, as Feast 0.67 writes them.
    labels = bytes.fromhex("9a01130a110a086f70696e696f6e73120572696465739a010c0a0a0a056f74686572120178")
    found = read_registry(labels, "rides")

    assert found.label_views == ("opinions",)
    assert found.projects == ("rides", "x")


def test_another_project_has_no_definitions_here() -> None:
    found = read_registry((FOLDER / "registry.db").read_bytes(), "elsewhere")

    assert (found.entities, found.views, found.services, found.on_demand_views) == ((), (), (), ())
    assert found.projects == ("rides",)


def test_a_file_that_is_cut_off_is_refused() -> None:
    data = (FOLDER / "registry.db").read_bytes()

    with pytest.raises(ProtobufError):
        read_registry(data[:1000], "rides")
    with pytest.raises(ProtobufError):
        read_registry(b"SQLite format 3\0", "rides")
