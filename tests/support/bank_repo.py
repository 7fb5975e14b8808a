"""A feature repo with a join key of every type, and rows whose values are known: for requests gone wrong.

Two views share a service. `person` has a variable-width column, `balance` has only numbers, so both ways of
reading rows are taken. `PERSON_BEFORE` is what `person` looked like before its last change.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.feature_server import Row

HEAD = """
import fastserve as fs

account = fs.Entity("account", fs.Field("account_id", fs.Int64))
user = fs.Entity("user", fs.Field("user_id", fs.String))
login = fs.Entity("login", [fs.Field("active", fs.Bool), fs.Field("since", fs.Timestamp)])
anything = fs.FileSource("anything", path="anything.csv", timestamp_field="at")

balance = fs.FeatureView(
    "balance",
    entities=account,
    source=anything,
    features=[fs.Attribute("amount", fs.Float64), fs.Attribute("bookings", fs.Int64)],
)
sessions = fs.FeatureView(
    "sessions", entities=[user, login], source=anything, features=[fs.Attribute("clicks", fs.Int64)]
)
"""
PERSON = """
person = fs.FeatureView(
    "person",
    entities=user,
    source=anything,
    features=[
        fs.Attribute("age", fs.Int64),
        fs.Attribute("city", fs.String),
        fs.Attribute("score", fs.Float64),
    ],
)
"""
PERSON_BEFORE = """
person = fs.FeatureView(
    "person",
    entities=user,
    source=anything,
    features=[
        fs.Attribute("city", fs.String),
        fs.Attribute("age", fs.Int64),
        fs.Attribute("height", fs.Float64),
    ],
)
"""
SERVICES = """
bank = fs.FeatureService("bank", features=[balance, person])
everything = fs.FeatureService("bank:all", features=[balance, person, sessions])
"""
DEFINITIONS = HEAD + PERSON + SERVICES
DEFINITIONS_BEFORE = HEAD + PERSON_BEFORE + SERVICES

TIME_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
JOIN_KEYS = {"account_id": 7, "user_id": "u1"}
ALL_JOIN_KEYS = {**JOIN_KEYS, "active": True, "since": "2026-01-01T00:00:00Z"}
ROWS = {
    "balance": [Row([7], {"amount": 12.5, "bookings": 2**60 + 1}, TIME_NS)],
    "person": [Row(["u1"], {"age": 41, "city": "Oslo", "score": 0.5}, TIME_NS)],
    "sessions": [Row(["u1", True, TIME_NS], {"clicks": 3}, TIME_NS)],
}
VECTOR = [12.5, str(2**60 + 1), "41", "Oslo", 0.5]


def write_bank_repo(folder: Path, definitions: str = DEFINITIONS) -> Path:
    """Write the repo into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fastserve.toml").write_text('workspace = "bank"\n', encoding="utf-8")
    (folder / "definitions.py").write_text(definitions, encoding="utf-8")
    return folder
