"""The views of an example feature repo: every parameter of the public names, as their types allow it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastserve import (
    Aggregate,
    Array,
    Attribute,
    AttributesFormat,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    Map,
    PushSource,
    String,
    Struct,
    Timestamp,
    TimeWindow,
)

from .entities import merchant, user

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
amount = Field("amount", Float64)

history = FileSource("history", ["data/*.parquet", "more/*.parquet"], timestamp_field="ts")
transactions = PushSource(
    "transactions",
    schema=[
        Field("user_id", String),
        Field("merchant_id", Int64),
        amount,
        Field("ts", Timestamp),
    ],
    batch_source=history,
    timestamp_field="ts",
)
users = FileSource("users", "users.csv.gz", null_values=["-"], delimiter=";")

user_amounts = FeatureView(
    "user_amounts",
    entities=user,
    source=transactions,
    features=[
        Aggregate(input_column=amount, function=function, time_window=TimeWindow(window_size=days * DAY))
        for function in ("sum", "mean", "max")
        for days in (1, 7, 28)
    ]
    + [Aggregate(amount, "count", DAY, name="transactions_today", tail_hop=HOUR)],
    aggregation_interval=HOUR,
    leading_edge="now",
    batch_schedule=DAY,
    start_time=datetime(2024, 1, 1, tzinfo=UTC),
)


def upper_names(table: Any) -> Any:
    """Return the table as it is; what a transformation does is tested elsewhere."""
    return table


profile = FeatureView(
    name="profile",
    entities=[user],
    source=users,
    features=[
        Attribute("age", Int64, description="years"),
        Attribute(Field("cards", Array(String))),
        Attribute("scores", Map(String, Float64)),
        Attribute("home", Struct([Field("street", String), Field("number", Int64)])),
    ],
    timestamp_field="changed",
    ttl=30 * DAY,
    transformation=upper_names,
)

pairs = FeatureView(
    "pairs",
    entities=(user, merchant),
    source=FileSource("pair_files", "s3://bucket/pairs/*.parquet", format="parquet"),
    features=(Attribute("visits", Int64),),
    transformation="SELECT * FROM pair_files",
    row_format=AttributesFormat(partition_key="user", sort_key="merchant"),
    table="legacy_pairs",
)
