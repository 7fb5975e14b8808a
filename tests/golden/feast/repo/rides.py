"""A Feast repo with what is worth a second look: every type, odd names, aliases, no entities."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)
from feast.value_type import ValueType

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64, description="Who drives")
rider = Entity(name="rider", join_keys=["rider_id"], value_type=ValueType.STRING)
city = Entity(name="city", join_keys=["city_code"], value_type=ValueType.INT32)
rows = FileSource(name="rows", path="rows.parquet", timestamp_field="at")

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="conv_rate", dtype=Float32, description="Accepted of offered", tags={"unit": "share"}),
        Field(name="acc_rate", dtype=Float64),
        Field(name="trips", dtype=Int64),
        Field(name="name", dtype=String),
        Field(name="active", dtype=Bool),
        Field(name="since", dtype=UnixTimestamp),
    ],
    source=rows,
    description="What a driver did lately",
    tags={"team": "rides"},
    owner="rides@example.org",
)
ride_pairs = FeatureView(
    name="ride-pairs",
    entities=[rider, driver],
    ttl=timedelta(0),
    schema=[
        Field(name="rider_id", dtype=String),
        Field(name="driver_id", dtype=Int64),
        Field(name="rides", dtype=Int32),
        Field(name="last fare", dtype=Float64),
    ],
    source=rows,
)
every_type = FeatureView(
    name="every_type",
    entities=[city],
    ttl=timedelta(0),
    schema=[
        Field(name="city_code", dtype=Int32),
        Field(name="raw", dtype=Bytes),
        Field(name="text", dtype=String),
        Field(name="small", dtype=Int32),
        Field(name="big", dtype=Int64),
        Field(name="single", dtype=Float32),
        Field(name="double", dtype=Float64),
        Field(name="flag", dtype=Bool),
        Field(name="moment", dtype=UnixTimestamp),
        Field(name="json", dtype=Json),
        Field(name="uuid", dtype=Uuid),
        Field(name="map", dtype=Map),
        Field(name="raws", dtype=Array(Bytes)),
        Field(name="texts", dtype=Array(String)),
        Field(name="smalls", dtype=Array(Int32)),
        Field(name="bigs", dtype=Array(Int64)),
        Field(name="singles", dtype=Array(Float32)),
        Field(name="doubles", dtype=Array(Float64)),
        Field(name="flags", dtype=Array(Bool)),
        Field(name="moments", dtype=Array(UnixTimestamp)),
        Field(name="bag", dtype=Set(String)),
        Field(name="table", dtype=Array(Array(Int64))),
    ],
    source=rows,
)
totals = FeatureView(
    name="totals",
    entities=[],
    ttl=timedelta(0),
    schema=[Field(name="rides_today", dtype=Int64)],
    source=rows,
)
offline_only = FeatureView(
    name="offline_only",
    entities=[driver],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="old", dtype=Int64)],
    source=rows,
    online=False,
)
ask = RequestSource(name="ask", schema=[Field(name="fare", dtype=Float64)])


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[driver_stats, ask], schema=[Field(name="fare_per_trip", dtype=Float64)], mode="python"
)
def fares(inputs: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(inputs["fare"], inputs["trips"], strict=True)
    return {"fare_per_trip": [fare / trips for fare, trips in pairs]}


price = FeatureService(
    name="ride-price.v1",
    features=[driver_stats[["trips", "conv_rate"]], ride_pairs[["last fare"]]],
    description="What a ride costs",
    tags={"model": "price"},
)
both_drivers = FeatureService(
    name="both_drivers",
    features=[
        driver_stats[["trips"]].with_name("first"),
        driver_stats[["trips", "name"]].with_name("other").with_join_key_map({"driver_id": "other_id"}),
    ],
)
with_code = FeatureService(name="with_code", features=[driver_stats, fares])
