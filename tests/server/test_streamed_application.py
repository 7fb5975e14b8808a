"""Vectors of streamed views over HTTP: which keys are read, what counts, and what fails what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from fastserve import (
    Aggregate,
    Attribute,
    FeatureView,
    Field,
    Float64,
    Int64,
    PushSource,
    String,
    Timestamp,
    last,
    on_demand_feature_view,
)
from fastserve.errors import StoreError
from fastserve.plan.keys import block_key
from fastserve.plan.service import WorkspacePlan
from fastserve.plan.views import ViewPlan
from fastserve.tiles import blocks
from fastserve.tiles.blocks import block_schema
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS
from tests.server.application_world import Answer, ApplicationWorld
from tests.serving.fake_store import own_row
from tests.serving.test_wide import INPUTS, row_of
from tests.support.plans import AS_OF_NS, NOW_NS, USER, aggregate_view, workspace_plan

AMOUNT = Field("amount", Float64)
PUSHED = PushSource(
    "pushed",
    [Field("user_id", String), Field("at", Timestamp), AMOUNT, Field("plan", String)],
    timestamp_field="at",
)
SPENDING = "spending.count_1d", "spending.recent", "spending.sum_1d"


def stream_view(name: str = "spending", horizon: timedelta = timedelta(days=2)) -> FeatureView:
    day = timedelta(days=1)
    return FeatureView(
        name,
        entities=[USER],
        source=PUSHED,
        features=[
            Aggregate(AMOUNT, "sum", day, name="sum_1d"),
            Aggregate(AMOUNT, "count", day, name="count_1d"),
            Aggregate(AMOUNT, last(2), day, name="recent"),
        ],
        aggregation_interval=timedelta(hours=1),
        horizon=horizon,
    )


class StreamWorld(ApplicationWorld):
    """A service ``s`` of a streamed view, an unstreamed one beside it, and a streamed view of attributes."""

    def __init__(self, plan: WorkspacePlan | None = None) -> None:
        view = stream_view()
        latest = FeatureView("latest", entities=[USER], source=PUSHED, features=[Attribute("plan", String)])
        days = aggregate_view("days", [Aggregate(AMOUNT, "sum", timedelta(days=1), name="sum_1d")])
        super().__init__(plan=plan or workspace_plan({"s": [view, days], "latest": [latest]}))
        self.put_row("u1", None)
        self.engine.watermarks.until_ns = {"spending": AS_OF_NS}

    @property
    def view(self) -> ViewPlan:
        return self.plan.views["spending"]

    def put_row(self, key: str, as_of_ns: int | None) -> None:
        row = None if as_of_ns is None else self.transport_row(key, as_of_ns)
        self.store.rows[self.view.table, key] = row

    def transport_row(self, key: str, as_of_ns: int) -> str:
        text: str = self.store.transport.wrap(own_row(self.view, key, as_of_ns))
        return text

    def push(self, key: str, *events: tuple[int, float]) -> None:
        """Put the blocks there that hold just these (time, amount) events."""
        assert self.view.schema is not None
        assert self.view.stream is not None
        schema = block_schema(self.view.schema)
        columns = {"amount": [amount for _, amount in events]}
        made = blocks.from_events(schema, [key] * len(events), [time_ns for time_ns, _ in events], columns)
        for (entity, number), block in made.items():
            place = (self.view.stream.table, block_key(entity, number))
            self.store.rows[place] = self.store.transport.wrap(blocks.encode(schema, block))

    def fail(self, key: str) -> None:
        self.store.failing[key] = StoreError("gone")

    def get(self, key: str = "u1", **options: Any) -> Answer:
        return self.ask("POST", "/api/v1/feature-service/get-features", body(key, **options))


def body(key: str, **options: Any) -> bytes:
    metadata = {"includeNames": True, "includeServingStatus": True, "includeEffectiveTimes": True}
    params = {
        "featureServiceName": "s",
        "joinKeyMap": {"user_id": key},
        "metadataOptions": metadata,
        **options,
    }
    return orjson.dumps({"params": params})


def spending(answer: Answer) -> dict[str, tuple[Any, str]]:
    """Return value and status of the streamed view's features."""
    assert answer.status == 200, answer.body
    found = zip(answer.json["metadata"]["features"], answer.json["result"]["features"], strict=True)
    return {
        about["name"].removeprefix("spending."): (value, about["status"])
        for about, value in found
        if about["name"].startswith("spending.")
    }


def current(world: StreamWorld) -> int:
    assert world.view.stream is not None
    return world.view.stream.block_of(world.clock_ns)


@pytest.fixture
def world() -> StreamWorld:
    return StreamWorld()


def test_a_streamed_view_costs_its_row_and_two_blocks(world: StreamWorld) -> None:
    world.get()
    (batch,) = world.store.batches
    now = current(world)
    assert {(read.group.tables, read.key) for read in batch} == {
        (("w.days", "w.spending"), "u1"),
        (("w.spending.stream",), f"u1\\t{now - 1}"),
        (("w.spending.stream",), f"u1\\t{now}"),
    }
    assert world.plan.services["s"].key_count == 4
    assert world.plan.services["latest"].key_count == 1


def test_tiles_count_on_a_row_from_its_as_of_on(world: StreamWorld) -> None:
    world.put_row("u1", AS_OF_NS)
    before = spending(world.get())
    world.push("u1", (AS_OF_NS - 1, 1000.0), (AS_OF_NS, 1.5), (NOW_NS - 1, 2.0), (NOW_NS - DAY_NS, 7.0))
    after = spending(world.get())
    assert after["sum_1d"] == (before["sum_1d"][0] + 3.5, "PRESENT")
    assert after["recent"] == ([1.5, 2.0], "PRESENT")


def test_a_key_without_a_row_is_answered_from_its_blocks_while_the_view_is_complete(
    world: StreamWorld,
) -> None:
    world.push("u1", (NOW_NS - 2 * HOUR_NS, 1.5), (NOW_NS - 1, 2.0))
    assert spending(world.get()) == {
        "count_1d": ("2", "PRESENT"),
        "recent": ([1.5, 2.0], "PRESENT"),
        "sum_1d": (3.5, "PRESENT"),
    }
    world.engine.watermarks.until_ns = {"spending": NOW_NS - 2 * DAY_NS - 1}
    assert set(spending(world.get()).values()) == {(None, "MISSING_DATA")}
    world.engine.watermarks.until_ns = {}
    assert set(spending(world.get()).values()) == {(None, "MISSING_DATA")}


def test_a_row_past_its_horizon_is_missing_whatever_is_in_the_blocks(world: StreamWorld) -> None:
    world.put_row("u1", NOW_NS - 2 * DAY_NS - 1)
    world.push("u1", (NOW_NS - 1, 2.0))
    assert set(spending(world.get()).values()) == {(None, "MISSING_DATA")}


def test_the_effective_time_is_that_of_the_newest_tile_or_row(world: StreamWorld) -> None:
    def effective(**options: Any) -> Any:
        features = world.get(**options).json["metadata"]["features"]
        return next(f.get("effectiveTime") for f in features if f["name"] == "spending.sum_1d")

    world.put_row("u1", AS_OF_NS)
    assert effective() == "2024-10-04T03:00:00Z"
    world.push("u1", (NOW_NS - 2 * HOUR_NS, 1.0))
    assert effective() == "2024-10-04T09:00:00Z"  # the end of that tile
    world.clock_ns = NOW_NS + 5 * MINUTE_NS
    world.push("u1", (NOW_NS + MINUTE_NS, 1.0))
    assert effective() == "2024-10-04T10:05:00Z"  # the tile is open: now


def test_empty_counts_are_coerced_unless_a_block_could_not_be_read(world: StreamWorld) -> None:
    options: dict[str, Any] = {
        "requestOptions": {"coerceNullCountsToZero": True},
        "allowPartialResults": True,
    }
    assert spending(world.get(**options))["count_1d"] == ("0", "MISSING_DATA")
    world.push("u1", (NOW_NS - 25 * HOUR_NS, 1.0))
    assert spending(world.get(**options))["count_1d"] == ("0", "PRESENT")
    world.fail(block_key("u1", current(world)))
    assert spending(world.get(**options))["count_1d"] == (None, "UNKNOWN")


@pytest.mark.parametrize("back", [0, 1])
def test_a_block_that_cannot_be_read_fails_the_view_as_its_row_would(world: StreamWorld, back: int) -> None:
    world.put_row("u1", AS_OF_NS)
    world.push("u1", (NOW_NS - 1, 2.0), (NOW_NS - 40 * HOUR_NS, 2.0))
    world.fail(block_key("u1", current(world) - back))
    assert world.get().status == 503
    answer = world.get(allowPartialResults=True)
    assert set(spending(answer).values()) == {(None, "UNKNOWN")}
    assert answer.json["result"]["features"][0] is not None  # the view beside it


def test_a_row_that_cannot_be_read_is_not_made_up_for_by_blocks(world: StreamWorld) -> None:
    world.push("u1", (NOW_NS - 1, 2.0))
    world.fail("u1")
    assert world.get().status == 503
    assert set(spending(world.get(allowPartialResults=True)).values()) == {(None, "UNKNOWN")}


@pytest.mark.parametrize("broken", ["", "AAAA", "no base64", "QgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
def test_bytes_that_are_no_block_fail_the_view(world: StreamWorld, broken: str) -> None:
    world.put_row("u1", AS_OF_NS)
    assert world.view.stream is not None
    world.store.rows[world.view.stream.table, block_key("u1", current(world))] = broken
    refused = world.get()
    assert refused.status == 503
    assert "a block of its stream" in refused.json["message"]
    assert set(spending(world.get(allowPartialResults=True)).values()) == {(None, "UNKNOWN")}


def break_block(world: StreamWorld, key: str) -> None:
    """Put a block there whose wide part doesn't fit it."""
    world.push(key, (NOW_NS - 1, 2.0))
    assert world.view.stream is not None
    place = (world.view.stream.table, block_key(key, current(world)))
    raw = bytearray(world.store.transport.unwrap(world.store.rows[place]))
    end = 16 + 8 * 3  # behind the header and one tile of a start and two words
    raw[end : end + 4] = b"\xff\xff\0\0"
    world.store.rows[place] = world.store.transport.wrap(bytes(raw))


def test_a_wide_part_that_is_broken_fails_the_view(world: StreamWorld) -> None:
    break_block(world, "u1")
    assert world.get().status == 503
    assert set(spending(world.get(allowPartialResults=True)).values()) == {(None, "UNKNOWN")}


def test_a_broken_block_and_another_line_s_broken_row_fail_these_lines_alone(world: StreamWorld) -> None:
    break_block(world, "u1")
    row = row_of(world.view, [(AS_OF_NS - 1, {**dict.fromkeys(INPUTS), "amount": 2.5})], AS_OF_NS)
    at = world.view.layout.fixed_bytes  # where its one state begins, with the format
    broken = row[:at] + b"\7" + row[at + 1 :]
    world.store.rows[world.view.table, "u2"] = world.store.transport.wrap(broken)
    params = {
        "featureServiceName": "s",
        "allowPartialResults": True,
        "metadataOptions": {"includeServingStatus": True},
        "requestData": [{"joinKeyMap": {"user_id": key}} for key in ("u1", "u2", "u3")],
    }
    path = "/api/v1/feature-service/get-features-batch"
    answer = world.ask("POST", path, orjson.dumps({"params": params}))
    assert answer.status == 200
    statuses = [feature["status"] for feature in answer.json["metadata"]["features"]]
    assert statuses == [["PRESENT"] * 3, *[["UNKNOWN", "UNKNOWN", "PRESENT"]] * 3]


def test_what_has_not_come_by_the_budget_is_timed_out_and_none_of_it_counts(world: StreamWorld) -> None:
    world.put_row("u1", AS_OF_NS)
    request = body("u1", requestOptions={"latencyBudgetMs": 100})
    connection = world.send("POST", "/api/v1/feature-service/get-features", request)
    world.turn()
    world.store.answer("u1", block_key("u1", current(world)))
    world.wait(0.2)
    (answer,) = connection.answers
    assert set(spending(answer).values()) == {(None, "TIME_OUT")}
    assert answer.json["result"]["features"][0] is not None


def test_a_request_is_evaluated_at_a_moment_that_its_blocks_serve(world: StreamWorld) -> None:
    assert world.view.stream is not None
    boundary = world.view.stream.start_ns(current(world) + 1)
    world.put_row("u1", boundary - HOUR_NS)
    world.push("u1", (boundary - 1, 2.0), (boundary, 4.0))
    path = "/api/v1/feature-service/get-features"
    world.clock_ns = boundary - 1
    early = world.send("POST", path, body("u1"))
    world.turn()
    world.clock_ns = boundary + 1
    late = world.send("POST", path, body("u1"))
    world.turn()
    world.store.answer()
    sums = [spending(connection.answers[0])["sum_1d"][0] for connection in (early, late)]
    assert sums[1] - sums[0] == 4.0
    assert spending(early.answers[0])["recent"][0] == [2.0]


def test_a_read_that_was_sent_before_a_push_answers_no_later_request(world: StreamWorld) -> None:
    world.put_row("u1", AS_OF_NS)
    path = "/api/v1/feature-service/get-features"
    early = world.send("POST", path, body("u1"))
    world.turn()
    late = world.send("POST", path, body("u1"))
    world.turn()
    assert {read.key for read in world.store.batches[1]} == {
        block_key("u1", current(world) - 1),
        block_key("u1", current(world)),
    }
    assert world.engine.coalescer.in_flight() == 5
    for read in world.store.batches[0]:
        world.store.fill(read)
    world.store.settle(world.store.batches[0])
    world.push("u1", (NOW_NS - 1, 2.0))
    world.store.answer()
    world.turn()
    assert spending(early.answers[0])["recent"][0] != [2.0]
    assert spending(late.answers[0])["recent"][0] == [2.0]
    assert world.engine.coalescer.in_flight() == 0


def test_lines_of_a_batch_have_their_own_rows_and_blocks(world: StreamWorld) -> None:
    world.put_row("u2", AS_OF_NS)
    world.put_row("u3", None)
    world.push("u1", (NOW_NS - 1, 1.0))
    world.push("u3", (NOW_NS - 1, 3.0), (NOW_NS - 3 * HOUR_NS, 4.0))
    params = {
        "featureServiceName": "s",
        "requestData": [{"joinKeyMap": {"user_id": f"u{number % 3 + 1}"}} for number in range(70)],
    }
    path = "/api/v1/feature-service/get-features-batch"
    connection = world.send("POST", path, orjson.dumps({"params": params}))
    world.turn()
    world.store.answer()
    world.turn()
    (answer,) = connection.answers
    assert answer.status == 200, answer.body
    recent = [line["features"][2] for line in answer.json["result"]]
    assert recent == [[1.0] if n % 3 == 0 else None if n % 3 == 1 else [4.0, 3.0] for n in range(70)]


def test_on_demand_views_take_what_is_streamed() -> None:
    view = stream_view()

    @on_demand_feature_view(
        sources=[view],
        mode="python",
        features=[Attribute("twice", Float64), Attribute("count", Int64)],
        name="computed",
    )
    def computed(spending: dict[str, Any]) -> dict[str, Any]:
        return {"twice": 2 * spending["sum_1d"], "count": spending["count_1d"]}

    world = StreamWorld(workspace_plan({"s": [computed]}))
    world.push("u1", (NOW_NS - 1, 1.25))
    answer = world.get()
    assert sorted(map(str, answer.json["result"]["features"])) == ["1", "2.5"]


def test_blocks_of_several_lengths_are_read_by_their_own_clocks() -> None:
    plan = workspace_plan({"s": [stream_view(), stream_view("fast", timedelta(hours=7))]})
    world = StreamWorld(plan)
    world.engine.watermarks.until_ns = {"spending": NOW_NS, "fast": NOW_NS}
    world.get()
    keys = {(read.group.tables, read.key) for batch in world.store.batches for read in batch}
    fast = NOW_NS // (7 * HOUR_NS)
    assert {key for tables, key in keys if tables == ("w.fast.stream",)} == {
        f"u1\\t{fast}",
        f"u1\\t{fast - 1}",
    }
    assert len(keys) == 5  # both rows are one read
