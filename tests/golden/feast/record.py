"""Records what real Feast does with the repo beside this file: its registry, items, entity ids and answers.

Run with Feast's interpreter and the endpoint of an empty DynamoDB emulator:
`python record.py http://127.0.0.1:8000`. It writes registry.db, items.json, keys.json, values.json and
exchanges.json; tests hold ours against them without Feast installed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENDPOINT = sys.argv[1]
PORT = 6577
# A moment in summer, so that a time zone would show; rows are this old when they are asked for.
NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)


def main() -> None:
    os.environ |= {
        "RIDES_ENDPOINT": ENDPOINT,
        "AWS_ACCESS_KEY_ID": "rides",
        "AWS_SECRET_ACCESS_KEY": "rides",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with tempfile.TemporaryDirectory() as scratch:
        repo = Path(scratch) / "repo"
        shutil.copytree(HERE / "repo", repo)
        feast = str(Path(sys.executable).parent / "feast")
        subprocess.run([feast, "apply", "--skip-source-validation"], cwd=repo, check=True)
        write_rows(repo)
        shutil.copy(repo / "registry.db", HERE / "registry.db")
        record_items()
        record_keys()
        record_values()
        record_exchanges(repo, feast)


def save(name: str, what: object) -> None:
    text = json.dumps(what, indent=1, ensure_ascii=False) + "\n"
    (HERE / name).write_text(text, encoding="utf-8")


# --- rows ------------------------------------------------------------------------------------------------


def proto(**fields: object) -> Any:
    from feast.protos.feast.types.Value_pb2 import Value

    return Value(**fields)


def lists(kind: str, values: list[Any]) -> Any:
    import feast.protos.feast.types.Value_pb2 as value_pb2

    return getattr(value_pb2, kind)(val=values)


def value_map(**values: object) -> Any:
    from feast.protos.feast.types.Value_pb2 import Map

    found = Map()
    for name, value in values.items():
        found.val[name].CopyFrom(value)
    return found


def every_value() -> dict[str, Any]:
    from feast.protos.feast.types.Value_pb2 import RepeatedValue

    rows = [lists("Int64List", [1, -2]), lists("Int64List", [])]
    inner = RepeatedValue(val=[proto(int64_list_val=row) for row in rows])
    return {
        "raw": proto(bytes_val=b"\x00\xff{}"),
        "text": proto(string_val="Zürich \U0001f695"),
        "small": proto(int32_val=-(2**31)),
        "big": proto(int64_val=2**63 - 1),
        "single": proto(float_val=0.1),
        "double": proto(double_val=-1e300),
        "flag": proto(bool_val=False),
        "moment": proto(unix_timestamp_val=1782907200),
        "json": proto(json_val='{"a": [1, null]}'),
        "uuid": proto(uuid_val="0a1b2c3d-0000-4000-8000-000000000000"),
        "map": proto(map_val=value_map(a=proto(int64_val=1), b=proto(string_val="x"))),
        "raws": proto(bytes_list_val=lists("BytesList", [b"", b"\x01"])),
        "texts": proto(string_list_val=lists("StringList", ["", "ä"])),
        "smalls": proto(int32_list_val=lists("Int32List", [0, -1, 2**31 - 1])),
        "bigs": proto(int64_list_val=lists("Int64List", [-(2**63), 0, 2**53 + 1])),
        "singles": proto(float_list_val=lists("FloatList", [0.1, -2.5])),
        "doubles": proto(double_list_val=lists("DoubleList", [0.1, float("nan"), float("inf")])),
        "flags": proto(bool_list_val=lists("BoolList", [True, False])),
        "moments": proto(unix_timestamp_list_val=lists("Int64List", [0, -1])),
        "bag": proto(string_set_val=lists("StringSet", ["one"])),
        "table": proto(list_val=inner),
    }


def write_rows(repo: Path) -> None:
    from feast import FeatureStore
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    store = FeatureStore(str(repo))

    def put(view: str, keys: dict[str, Any], values: dict[str, Any], at: datetime) -> None:
        key = EntityKey(join_keys=list(keys), entity_values=list(keys.values()))
        table = store.get_feature_view(view)
        store._get_provider().online_write_batch(store.config, table, [(key, values, at, None)], None)

    for number in range(1, 13):
        at = NOW - timedelta(hours=2 * number, microseconds=500 * number)
        values = {
            "conv_rate": proto(float_val=number / 10),
            "acc_rate": proto(double_val=number / 3),
            "trips": proto(int64_val=number * 1000),
            "name": proto(string_val=f"driver {number}"),
            "active": proto(bool_val=number % 2 == 0),
            "since": proto(unix_timestamp_val=1_700_000_000 + number),
        }
        if number == 3:
            values |= {"acc_rate": proto(double_val=float("nan")), "name": proto()}
        if number == 4:
            del values["active"]
        put("driver_stats", {"driver_id": proto(int64_val=number)}, values, at)
    # 13 is past the day that the view's ttl says: 26 hours old. 14 is of another century.
    late = {"trips": proto(int64_val=13), "conv_rate": proto(float_val=1.0)}
    put("driver_stats", {"driver_id": proto(int64_val=13)}, late, NOW - timedelta(hours=26))
    put("driver_stats", {"driver_id": proto(int64_val=-14)}, late, NOW - timedelta(days=1, seconds=-1))
    for pair in (("r|1", 1), ("", 2), ("ü\\0", -14)):
        keys = {"rider_id": proto(string_val=pair[0]), "driver_id": proto(int64_val=pair[1])}
        fare = {"rides": proto(int32_val=pair[1]), "last fare": proto(double_val=12.5)}
        put("ride-pairs", keys, fare, NOW - timedelta(days=400))
    put("every_type", {"city_code": proto(int32_val=-8001)}, every_value(), NOW)
    put("every_type", {"city_code": proto(int32_val=8002)}, {name: proto() for name in every_value()}, NOW)
    put("totals", {"__dummy_id": proto(string_val="")}, {"rides_today": proto(int64_val=77)}, NOW)


def record_items() -> None:
    import boto3

    client = boto3.client("dynamodb", endpoint_url=ENDPOINT, region_name="us-east-1")

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return {key: plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    found = {}
    for table in sorted(client.list_tables()["TableNames"]):
        items = [plain(item) for item in client.scan(TableName=table)["Items"]]
        found[table] = sorted(items, key=lambda item: item["entity_id"]["S"])
    save("items.json", found)


# --- keys and values -------------------------------------------------------------------------------------

KEYS: list[dict[str, tuple[str, Any]]] = [
    {"driver_id": ("INT64", 1)},
    {"driver_id": ("INT64", -14)},
    {"driver_id": ("INT64", 2**31 - 1)},
    {"driver_id": ("INT64", 2**63 - 1)},
    {"city_code": ("INT32", -8001)},
    {"rider_id": ("STRING", "")},
    {"rider_id": ("STRING", "ü\\0|x")},
    {"rider_id": ("STRING", "a" * 100)},
    {"at": ("UNIX_TIMESTAMP", -1)},
    {"blob": ("BYTES", "AP8=")},
    {"rider_id": ("STRING", "r|1"), "driver_id": ("INT64", 1)},
    {"b": ("STRING", "x"), "a": ("INT32", 7), "ab": ("STRING", "y")},
    {"__dummy_id": ("STRING", "")},
]


def record_keys() -> None:
    import mmh3
    from feast.infra.online_stores.helpers import compute_entity_id
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    def value(kind: str, given: Any) -> Any:
        return proto(**{f"{kind.lower()}_val": base64.b64decode(given) if kind == "BYTES" else given})

    found = []
    for key in KEYS:
        made = EntityKey(join_keys=list(key), entity_values=[value(*each) for each in key.values()])
        ids = {}
        for version in (1, 2, 3):
            try:
                ids[version] = compute_entity_id(made, version)
            except Exception as error:  # noqa: BLE001 - what doesn't fit four bytes
                print(f"version {version} of {key}: {error}")
        found.append({"key": key, "ids": ids})
    hashes = [mmh3.hash_bytes(bytes(range(length))).hex() for length in range(65)]
    save("keys.json", {"keys": found, "hashes": hashes})


def record_values() -> None:
    import feast.protos.feast.types.Value_pb2 as value_pb2
    from feast.feature_server_utils import _value_to_native

    values = list(every_value().values())
    values += [proto(), proto(null_val=0), proto(int64_val=0), proto(int32_val=-1)]
    values += [proto(string_val="x" * 300), proto(double_val=-0.0), proto(double_val=5e-324)]
    values += [proto(double_val=float(text)) for text in ("nan", "inf", "-inf")]
    values += [proto(float_val=float("nan")), proto(bool_val=True), proto(unix_timestamp_val=-(2**63))]
    values += [
        proto(**{name: lists(kind, entries)})
        for name, kind, entries in (
            ("bytes_set_val", "BytesSet", [b"\xfe"]),
            ("int32_set_val", "Int32Set", [-5]),
            ("int64_set_val", "Int64Set", [5]),
            ("double_set_val", "DoubleSet", [0.5]),
            ("float_set_val", "FloatSet", [0.1]),
            ("bool_set_val", "BoolSet", [True]),
            ("unix_timestamp_set_val", "Int64Set", [5]),
            ("json_list_val", "StringList", ["{}"]),
            ("uuid_list_val", "StringList", ["u"]),
            ("uuid_set_val", "StringSet", ["u"]),
            ("time_uuid_list_val", "StringList", ["u"]),
            ("time_uuid_set_val", "StringSet", ["u"]),
            ("decimal_list_val", "StringList", ["1.10"]),
            ("decimal_set_val", "StringSet", ["1.10"]),
            ("string_list_val", "StringList", []),
        )
    ]
    values += [proto(time_uuid_val="t"), proto(decimal_val="1.10")]
    inner = value_map(a=proto(), b=proto(map_val=value_map(c=proto(double_val=0.5))))
    values += [proto(struct_val=inner), proto(map_val=value_map())]
    values += [proto(map_list_val=value_pb2.MapList(val=[inner, value_map()]))]
    values += [proto(struct_list_val=value_pb2.MapList(val=[]))]
    nested = value_pb2.RepeatedValue(val=[proto(string_set_val=lists("StringSet", ["a"])), proto()])
    values += [proto(set_val=nested), proto(scalar_map_val=value_pb2.ScalarMap())]
    for zone in ("", "UTC", "America/Los_Angeles", "-07:00", "+05:30"):
        moment = value_pb2.ZonedTimestamp(unix_timestamp=1782907200, zone=zone)
        values.append(proto(zoned_timestamp_val=moment))
    values.append(proto(zoned_timestamp_val=value_pb2.ZonedTimestamp(unix_timestamp=-(2**63))))
    save(
        "values.json",
        [[base64.b64encode(each.SerializeToString()).decode(), _value_to_native(each)] for each in values],
    )


# --- exchanges -------------------------------------------------------------------------------------------

DRIVERS = ["driver_stats:trips", "driver_stats:conv_rate", "driver_stats:acc_rate", "driver_stats:name"]
ALL_TYPES = [f"every_type:{name}" for name in every_value()]
REQUESTS = {
    "one row": {"features": DRIVERS, "entities": {"driver_id": [1]}},
    "some rows, one twice, one absent": {
        "features": [*DRIVERS, "driver_stats:active", "driver_stats:since"],
        "entities": {"driver_id": [3, 4, 99, 3, 13]},
    },
    "full names": {"features": DRIVERS[:1], "entities": {"driver_id": [1]}, "full_feature_names": True},
    "two views, one of two keys": {
        "features": ["driver_stats:trips", "ride-pairs:rides", "ride-pairs:last fare"],
        "entities": {"driver_id": [1, 2, 2], "rider_id": ["r|1", "", "nobody"]},
    },
    "every type": {"features": ALL_TYPES, "entities": {"city_code": [-8001, 8002, 5]}},
    "no entities": {"features": ["totals:rides_today"], "entities": {"driver_id": [1, 2]}},
    "a service": {"feature_service": "ride-price.v1", "entities": {"driver_id": [1], "rider_id": ["r|1"]}},
    "aliases": {
        "feature_service": "both_drivers",
        "entities": {"driver_id": [1, 2], "other_id": [2, 99]},
        "full_feature_names": True,
    },
    "an entity's name": {"features": DRIVERS[:1], "entities": {"driver": [1]}},
    "columns that nobody knows": {"features": DRIVERS[:1], "entities": {"driver_id": [1], "x": ["y"]}},
    "latest": {"features": ["driver_stats@latest:trips"], "entities": {"driver_id": [1]}},
    "unknown view": {"features": ["nothing:trips"], "entities": {"driver_id": [1]}},
    "unknown feature": {"features": ["driver_stats:nothing"], "entities": {"driver_id": [1]}},
    "unknown service": {"feature_service": "nothing", "entities": {"driver_id": [1]}},
    "no colon": {"features": ["trips"], "entities": {"driver_id": [1]}},
    "no features": {"entities": {"driver_id": [1]}},
    "a feature twice": {"features": [DRIVERS[0], DRIVERS[0]], "entities": {"driver_id": [1]}},
    "names collide": {"feature_service": "both_drivers", "entities": {"driver_id": [1], "other_id": [1]}},
    "no entity columns": {"features": DRIVERS[:1], "entities": {}},
    "no rows": {"features": DRIVERS[:1], "entities": {"driver_id": []}},
    "columns of two lengths": {
        "features": ["ride-pairs:rides"],
        "entities": {"driver_id": [1], "rider_id": ["a", "b"]},
    },
    "a join key lacks": {"features": ["ride-pairs:rides"], "entities": {"driver_id": [1]}},
    "all join keys lack": {"features": DRIVERS[:1], "entities": {"rider_id": ["a"]}},
    "null": {"features": DRIVERS[:1], "entities": {"driver_id": [None]}},
    "text for a number": {"features": DRIVERS[:1], "entities": {"driver_id": ["1"]}},
    "a fraction for a number": {"features": DRIVERS[:1], "entities": {"driver_id": [1.5]}},
    "a whole float for a number": {"features": DRIVERS[:1], "entities": {"driver_id": [1.0]}},
    "truth for a number": {"features": DRIVERS[:1], "entities": {"driver_id": [True]}},
    "a number too large": {"features": DRIVERS[:1], "entities": {"driver_id": [2**63]}},
    "a number for text": {
        "features": ["ride-pairs:rides"],
        "entities": {"rider_id": [1], "driver_id": [1]},
    },
    "an object for a number": {"features": DRIVERS[:1], "entities": {"driver_id": [{}]}},
    "entities lack": {"features": DRIVERS[:1]},
    "entities of another type": {"features": DRIVERS[:1], "entities": [1]},
    "a column of another type": {"features": DRIVERS[:1], "entities": {"driver_id": 1}},
    "features of another type": {"features": [1], "entities": {"driver_id": [1]}},
    "not an object": [],
    "on-demand code lacks its input": {"feature_service": "with_code", "entities": {"driver_id": [1]}},
}


def record_exchanges(repo: Path, feast: str) -> None:
    command = [feast, "serve", "--host", "127.0.0.1", "--port", str(PORT), "--workers", "1"]
    with subprocess.Popen(command, cwd=repo) as server:
        try:
            wait_until_up()
            found = [
                {"name": name, "request": body, **dict(zip(("status", "answer"), post(body), strict=True))}
                for name, body in REQUESTS.items()
            ]
        finally:
            server.terminate()
    save("exchanges.json", found)


def post(body: object) -> tuple[int, object]:
    url = f"http://127.0.0.1:{PORT}/get-online-features"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_up() -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("feast serve didn't come up")


if __name__ == "__main__":
    main()
