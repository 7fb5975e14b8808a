"""Feast's Python feature server over DynamoDB, for the look-ups that fastserve answers.

Its repository is made from the measured services: a view of float64 features for each of theirs, in tables of
Feast's own layout (an item of a map of protobuf values) that the stand-in answers. It must not know what it
is compared with, beyond those services.

Invariants:
1. It runs with the settings that cost least: one worker, no access log, no metrics, no restart after so many
   requests, no look at the registry while it is measured; every feature is asked for by its name, since a
   feature service costs more; calls aren't slowed down by the SDK's adaptive retries.
2. Its tables hold the numbers of row 0 of fastserve's, under every key; answers are checked against them.
"""

from __future__ import annotations

import base64
import contextlib
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from perf.compare.feast.environment import feast_command
from perf.compare.feast.server import PATH, command, environment
from perf.data import service_plan, view_values
from perf.load.child import ChildError
from perf.load.free_port import free_port
from perf.load.load_plan import Stream
from perf.load.tables import row_index
from perf.server import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perf.load.standin_client import StandInAddress

# Part of the tables' names, so that they are others than fastserve's.
PROJECT = "feast"
ENTITIES = 64
# It takes five seconds of CPU to start; the machine may have other things to do.
_READY_TIMEOUT_S = 180.0
# `double_val` of feast.types.Value: field 5, eight bytes.
_DOUBLE_TAG = b"\x29"
_STORE = """\
project: {project}
provider: local
registry: registry.db
online_store:
  type: dynamodb
  region: local
  endpoint_url: {endpoint}
  batch_size: 100
  retry_mode: standard
  max_pool_connections: 64
entity_key_serialization_version: 3
"""
_DEFINITIONS = """\
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float64, String
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
rows = FileSource(name="rows", path="rows.parquet", timestamp_field="at")
for _name, _count in {views!r}.items():
    _schema = [Field(name="user_id", dtype=String)]
    _schema += [Field(name=f"{{_name}}_f{{number:03d}}", dtype=Float64) for number in range(_count)]
    globals()[_name] = FeatureView(
        name=_name, entities=[user], ttl=timedelta(0), schema=_schema, source=rows, online=True
    )
"""


@contextlib.contextmanager
def running(services: Sequence[str], stand_in: StandInAddress) -> Iterator[tuple[int, int]]:
    """Serve the services' views out of the stand-in; give the server's pid and port.

    Raises:
        ChildError: Feast can't be installed, refuses the repository, or did not come up.
    """
    keys = {"AWS_ACCESS_KEY_ID": "perf", "AWS_SECRET_ACCESS_KEY": "perf", "AWS_DEFAULT_REGION": "local"}
    variables = {**environment(), **keys}
    store = _STORE.format(project=PROJECT, endpoint=stand_in.endpoint)
    with applied(services, store, variables) as place:
        _prepare(services, stand_in)
        with serving(place, variables) as found:
            yield found


@contextlib.contextmanager
def applied(services: Sequence[str], store: str, variables: dict[str, str]) -> Iterator[Path]:
    """Apply a repository of the services' views with that `feature_store.yaml`; give its temporary folder.

    Raises:
        ChildError: Feast can't be installed, or refuses the repository.
    """
    feast = feast_command()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "feature_store.yaml").write_text(store)
        (place / "features.py").write_text(_DEFINITIONS.format(views=_views(services)))
        applying = [str(feast), "apply", "--skip-source-validation"]
        done = subprocess.run(applying, cwd=place, check=False, capture_output=True, env=variables)
        if done.returncode:
            raise ChildError(
                f"feast apply failed; it wrote:\n{done.stderr.decode(errors='replace')[-2_000:]}"
            )
        yield place


@contextlib.contextmanager
def serving(place: Path, variables: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Serve an applied repository; give the server's pid and port.

    Raises:
        ChildError: it did not come up.
    """
    port = free_port()
    arguments = command(feast_command(), port)
    with listening(
        arguments, port, "/health", cwd=place, environment=variables, timeout_s=_READY_TIMEOUT_S
    ) as pid:
        yield pid, port


def _views(services: Sequence[str]) -> dict[str, int]:
    return {
        place.view.name: len(place.view.layout.columns)
        for service in services
        for place in service_plan(service).places
    }


def _prepare(services: Sequence[str], stand_in: StandInAddress) -> None:
    for service in services:
        for place in service_plan(service).places:
            name = place.view.name
            values = dict(
                zip(_features(name, len(place.view.layout.columns)), _numbers(service, name, 0), strict=True)
            )
            stand_in.prepare_items(f"{PROJECT}.{name}", "entity_id", [item_text(values)])


def item_text(values: dict[str, float]) -> str:
    """Give the JSON of an item as Feast writes it, without its key."""
    packed = {
        name: {"B": base64.b64encode(_DOUBLE_TAG + struct.pack("<d", value)).decode()}
        for name, value in values.items()
    }
    return orjson.dumps({"event_ts": {"S": "2026-01-10T00:00:00"}, "values": {"M": packed}}).decode()


def _features(view: str, count: int) -> list[str]:
    return [f"{view}_f{number:03d}" for number in range(count)]


def _numbers(service: str, view: str, row: int) -> list[float]:
    (found,) = (place.view for place in service_plan(service).places if place.view.name == view)
    numbers: list[float] = view_values(found)[row].tolist()
    return numbers


def request_stream(service: str, **load: Any) -> Stream:
    """Make the load: the same entity, every feature by its name."""
    views = _views([service])
    names = [f"{view}:{feature}" for view, count in views.items() for feature in _features(view, count)]
    body = orjson.dumps({"features": names, "entities": {"user_id": ["\n"]}}).decode()
    head, _, tail = body.partition("\\n")
    verify = {"verify": "perf.compare.feast.lookups:value_verifier", "verify_with": {"service": service}}
    # Its requests are long, and the generator makes them all beforehand: no more entities than needed.
    return Stream("feast", PATH, head, tail, **{**verify, "verify_every": 10, "entities": ENTITIES, **load})


def value_verifier(configuration: dict[str, Any]) -> Callable[[str, bytes], str | None]:
    """Make the generator's check of an answer's values: it gives the first problem, or None.

    Every key has row 0's numbers, or with `pool_rows` those of its own row of so many.
    """
    service, pool_rows = configuration["service"], configuration.get("pool_rows", 1)

    @cache
    def expected(row: int) -> dict[str, float]:
        return {
            feature: number
            for view, count in _views([service]).items()
            for feature, number in zip(_features(view, count), _numbers(service, view, row), strict=True)
        }

    def verify(key: str, body: bytes) -> str | None:
        answer = orjson.loads(body)
        names = answer["metadata"]["feature_names"]
        got = {name: result["values"][0] for name, result in zip(names, answer["results"], strict=True)}
        for name, number in expected(row_index(key, pool_rows)).items():
            if got.get(name) != number:
                return f"{name}: expected {number!r}, got {got.get(name)!r}"
        return None

    return verify
