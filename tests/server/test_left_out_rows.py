"""Keys for whose row there was no room, over the whole application: missing in every form of an answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from fastserve import Aggregate, Attribute, Bool, FeatureView, Field, Int64, PushSource, String, Timestamp
from fastserve import on_demand_feature_view as on_demand
from fastserve.errors import StoreError
from fastserve.plan.keys import block_key
from fastserve.plan.service import WorkspacePlan
from fastserve.serving.row_cache import RowCache
from fastserve.tiles.blocks import encode, from_events
from fastserve.tiles.layout import NO_ROW
from tests.server.application_world import V1, Answer, ApplicationWorld
from tests.support.plans import NOW_NS, USER, aggregate_view, workspace_plan

UNITS = Field("units", Int64)
COUNT = [Aggregate(UNITS, "count", timedelta(days=1), name="n"), Aggregate(UNITS, "sum", timedelta(days=1))]
PUSHES = PushSource("pushes", [*USER.join_keys, Field("at", Timestamp), UNITS], timestamp_field="at")
VIEWS = ("pushed", "filed")
ROWS = [{"user_id": user} for user in ("left-out", "u1", "absent")]
EVERYTHING = {f"include{part}": True for part in ("Names", "EffectiveTimes", "ServingStatus")}
ZEROS = {"coerceNullCountsToZero": True}
DOWN = StoreError("nobody there", retryable=True)


def left_out_plan() -> WorkspacePlan:
    pushed = FeatureView(
        "pushed",
        entities=[USER],
        source=PUSHES,
        features=COUNT,
        aggregation_interval=timedelta(hours=1),
        cache_ttl=timedelta(seconds=10),
        stale_ttl=timedelta(seconds=100),
        cache_streamed=True,
    )
    filed = aggregate_view("filed", COUNT)

    @on_demand(
        sources=[pushed, filed],
        features=[Attribute("counts", String), Attribute("is_known", Bool)],
    )
    def told(pushed: dict[str, Any], filed: dict[str, Any]) -> dict[str, Any]:
        counts = [pushed["n"], filed["n"]]
        return {"counts": repr(counts), "is_known": counts != [None, None]}

    return workspace_plan({"views": [pushed, filed], "told": [pushed, filed, told]})


class LeftOutWorld(ApplicationWorld):
    """A key that is left out, and has a block; one that has a row and a block; one that has nothing."""

    def __init__(self) -> None:
        super().__init__(plan=left_out_plan(), cache=RowCache(1_000_000))
        self.engine.watermarks.until_ns = {"pushed": NOW_NS}
        (stream,) = self.plan.services["views"].streams
        for view in VIEWS:
            self.put(f"w.{view}", "left-out", NO_ROW)
            self.store.rows[f"w.{view}", "absent"] = None
        for user in ("left-out", "u1"):
            pushed = from_events(stream.blocks, [user] * 2, [NOW_NS - 2, NOW_NS - 1], {"units": [5, 7]})
            for (_, number), block in pushed.items():
                self.put("w.pushed.stream", block_key(user, number), encode(stream.blocks, block))

    def put(self, table: str, key: str, row: bytes) -> None:
        self.store.rows[table, key] = self.store.transport.wrap(row)

    def both(self, service: str, user: str, **params: Any) -> tuple[Any, bytes]:
        """Return a vector's document, and the same in MessagePack."""
        document = {"featureServiceName": service, "joinKeyMap": {"user_id": user}, **params}
        body = orjson.dumps({"params": document})
        packed = self.ask("POST", V1 + "get-features", body, accept=b"application/msgpack")
        assert packed.status == 200
        return self.features(service, {"user_id": user}, **params).json, packed.body


@pytest.fixture
def world() -> LeftOutWorld:
    return LeftOutWorld()


def told(answer: Answer) -> list[tuple[Any, list[str]]]:
    """Return the vectors of a batch with their statuses."""
    assert answer.status == 200, answer.json
    statuses = zip(*[feature["status"] for feature in answer.json["metadata"]["features"]], strict=True)
    vectors = [line["features"] for line in answer.json["result"]]
    return list(zip(vectors, map(list, statuses), strict=True))


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["values", "everything"])
def test_it_is_answered_as_a_key_that_has_nothing(world: LeftOutWorld, options: dict[str, bool]) -> None:
    for service in ("views", "told"):
        more: dict[str, Any] = {"metadataOptions": options, "requestOptions": {"readFromCache": False}}
        assert world.both(service, "left-out", **more) == world.both(service, "absent", **more)


def test_its_neighbours_in_a_batch_are_answered_as_ever(world: LeftOutWorld) -> None:
    options: dict[str, Any] = {"metadataOptions": EVERYTHING}
    first, there, absent = told(world.batch("told", ROWS, **options))
    assert (
        first
        == absent
        == (
            ["[None, None]", False, *[None] * 4],
            ["PRESENT"] * 2 + ["MISSING_DATA"] * 4,
        )
    )
    assert there[1] == ["PRESENT"] * 6
    assert None not in there[0]
    assert world.features("told", {"user_id": "u1"}).json["result"]["features"] == there[0]


def test_its_count_is_no_zero_also_where_one_is_asked_for(world: LeftOutWorld) -> None:
    for service, values in (("views", [None] * 4), ("told", ["[None, None]", False, *[None] * 4])):
        document, _ = world.both(service, "left-out", requestOptions=ZEROS)
        assert document["result"]["features"] == values
    document, _ = world.both("views", "absent", requestOptions=ZEROS)
    assert document["result"]["features"] == ["0", None, "0", None]


def test_it_is_remembered_as_long_as_a_row_and_known_when_the_store_is_down(world: LeftOutWorld) -> None:
    options: dict[str, Any] = {"metadataOptions": {"includeServingStatus": True}, "allowPartialResults": True}

    def asked() -> tuple[Any, list[str]]:
        (vector,) = told(world.batch("views", [{"user_id": "left-out"}], **options))
        return vector

    assert asked() == ([None] * 4, ["MISSING_DATA"] * 4)
    world.store.failing = dict.fromkeys(["left-out", *[key for _, key in world.store.rows]], DOWN)
    world.now_s += 50
    assert asked() == ([None] * 4, ["UNKNOWN"] * 2 + ["CACHED_MISSING_DATA"] * 2)
