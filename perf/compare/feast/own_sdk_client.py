"""Feast's SDK writing and reading, in Feast's own environment: `own_sdk` starts it and reads what it prints.

It runs under Feast's interpreter, so it imports nothing of this project. Every reader is `FeatureStore` as it
is installed; they differ in nothing but their `feature_store.yaml`.
"""

from __future__ import annotations

import gc
import http.client
import json
import statistics
import sys
import time
import urllib.parse
from datetime import UTC, datetime, timedelta
from typing import Any

from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

WARM_UP = 3
ABSENT = 10_000_000
"""Users from here on have no rows."""


def main() -> None:
    """Do what the first argument says, with the JSON of the second."""
    action, configuration = sys.argv[1], json.loads(sys.argv[2])
    json.dump({"write": write, "read": read}[action](configuration), sys.stdout)


def write(configuration: dict[str, Any]) -> dict[str, Any]:
    """Write rows of all views for so many users, by the SDK."""
    store = FeatureStore(configuration["repo"])
    at = datetime.now(UTC) - timedelta(minutes=5)
    rows = 0
    for view in store.list_feature_views():
        data = []
        for user in range(configuration["users"]):
            key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=user)])
            values = {
                field.name: Value(double_val=user + number / 7) for number, field in enumerate(view.features)
            }
            data.append((key, values, at, None))
        store._get_provider().online_write_batch(store.config, view, data, None)
        rows += len(data)
    return {"rows": rows}


def read(configuration: dict[str, Any]) -> dict[str, Any]:
    """Read the same rows by each reader in turn; give the medians, and how many reads differed."""
    readers = {name: FeatureStore(repo) for name, repo in configuration["readers"].items()}
    first = next(iter(readers))
    features = [
        f"{view.name}:{field.name}" for view in readers[first].list_feature_views() for field in view.features
    ]
    gc.freeze()
    gc.disable()  # a collection in one reader's turn would count against it
    found: dict[str, Any] = {"features": len(features), "sizes": {}}
    for size, repeats in configuration["sizes"]:
        times: dict[str, list[float]] = {name: [] for name in readers}
        differing = 0
        for turn in range(WARM_UP + repeats):
            users = [(turn * size + number) % configuration["users"] for number in range(size)]
            if size > 1:
                users[-1] = ABSENT + turn
            answers = {}
            for name, store in readers.items():
                begin = time.perf_counter()
                response = store.get_online_features(features, [{"user_id": user} for user in users])
                values = response.to_dict()
                times[name].append(time.perf_counter() - begin)
                answers[name] = (values, statuses(response))
            differing += any(answer != answers[first] for answer in answers.values())
        found["sizes"][size] = {
            "reads": repeats,
            "differing": differing,
            "answer_ms": {
                name: round_trip_ms(url, features, size, configuration["users"], repeats)
                for name, url in configuration["urls"].items()
            },
            "median_ms": {name: statistics.median(each[WARM_UP:]) * 1000 for name, each in times.items()},
        }
    return found


def round_trip_ms(url: str, features: list[str], size: int, users: int, repeats: int) -> float:
    """Return the median time from a request's first byte to its answer's last, over one connection."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    times = []
    for turn in range(WARM_UP + repeats):
        keys = [(turn * size + number) % users for number in range(size)]
        body = json.dumps({"features": features, "entities": {"user_id": keys}})
        begin = time.perf_counter()
        connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        times.append(time.perf_counter() - begin)
    connection.close()
    return statistics.median(times[WARM_UP:]) * 1000


def statuses(response: Any) -> dict[str, list[int]]:
    """Return the statuses of each column."""
    names = response.proto.metadata.feature_names.val
    return {name: list(result.statuses) for name, result in zip(names, response.proto.results, strict=True)}


if __name__ == "__main__":
    main()
