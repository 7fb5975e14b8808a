"""Feast's SDK writing rows into its online store, in Feast's own environment: `redis_lookups` starts it.

It runs under Feast's interpreter, so it imports nothing of this project. Its argument is a JSON file of
`views` (rows of numbers by view, in the order of its features) and `keys` (which row each user has).
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

KEYS_A_BATCH = 100


def main() -> None:
    """Write the rows of all views into the store of the repo in this folder."""
    asked = json.loads(Path(sys.argv[1]).read_bytes())
    store, at = FeatureStore("."), datetime.now(UTC)
    users = [
        (EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)]), row)
        for user, row in asked["keys"].items()
    ]
    for view in store.list_feature_views():
        names = sorted(field.name for field in view.features)
        rows = [
            {name: Value(double_val=number) for name, number in zip(names, row, strict=True)}
            for row in asked["views"][view.name]
        ]
        for first in range(0, len(users), KEYS_A_BATCH):
            data = [(key, rows[row], at, None) for key, row in users[first : first + KEYS_A_BATCH]]
            store._get_provider().online_write_batch(store.config, view, data, None)


if __name__ == "__main__":
    main()
