"""A small feature repo that has one of everything, written into a folder for whoever loads it.

Attributes and aggregates, text and numbers, a ttl, one and two join keys, a view that is read twice under two
key maps, a view over an ordinary table, two services that share a view.
"""

from __future__ import annotations

from pathlib import Path

DEFINITIONS = """
from datetime import timedelta

import fastserve as fs

user = fs.Entity("user", join_keys=fs.Field("user_id", fs.String))
merchant = fs.Entity("merchant", join_keys=fs.Field("merchant_id", fs.Int64))
payments = fs.FileSource("payments", path="payments.csv", timestamp_field="at")
people = fs.FileSource("people", path="people.csv", timestamp_field="at")

profile = fs.FeatureView(
    name="profile",
    entities=user,
    source=people,
    features=[
        fs.Attribute("age", fs.Int64, description="Years since birth", tags={"owner": "risk"}),
        fs.Attribute("city", fs.String),
        fs.Attribute("vip", fs.Bool),
    ],
    ttl=timedelta(days=30),
)
spending = fs.FeatureView(
    name="spending",
    entities=user,
    source=payments,
    aggregation_interval=timedelta(hours=1),
    features=[
        fs.Aggregate(fs.Field("amount", fs.Float64), function, timedelta(days=days))
        for days in (1, 28)
        for function in ("sum", "mean", "count")
    ],
)
pair = fs.FeatureView(
    name="pair",
    entities=[user, merchant],
    source=payments,
    aggregation_interval=timedelta(hours=1),
    features=[fs.Aggregate(fs.Field("amount", fs.Float64), "max", timedelta(days=7))],
)
shop = fs.FeatureView(
    name="shop",
    entities=merchant,
    source=people,
    features=[fs.Attribute("rating", fs.Float64)],
    row_format=fs.AttributesFormat(partition_key="id", timestamp_attribute="updated"),
    table="legacy_shops",
)
fraud = fs.FeatureService(
    name="fraud:v2",
    features=[
        profile,
        spending,
        spending[["amount_sum_1d_1h"]].with_name("payee_spending").with_join_key_map({"user_id": "payee_id"}),
        pair,
        shop,
    ],
    description="Scores a payment before it is made.",
)
users = fs.FeatureService(name="users", features=[profile[["age"]]])
"""

PAYMENTS = """user_id,merchant_id,amount,at
u1,7,12.5,2026-01-01T10:30:00Z
u1,7,2.5,2026-01-02T09:15:00Z
u2,8,100,2026-01-02T11:00:00Z
"""
PEOPLE = """user_id,merchant_id,age,city,vip,rating,at
u1,7,30,Oslo,true,4.5,2026-01-01T00:00:00Z
u2,8,41,,false,3.5,2026-01-01T00:00:00Z
"""


def write_shop_repo(folder: Path, definitions: str = DEFINITIONS) -> Path:
    """Write the repo and its data into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fastserve.toml").write_text('workspace = "shop"\n', encoding="utf-8")
    (folder / "definitions.py").write_text(definitions, encoding="utf-8")
    (folder / "payments.csv").write_text(PAYMENTS, encoding="utf-8")
    (folder / "people.csv").write_text(PEOPLE, encoding="utf-8")
    return folder
