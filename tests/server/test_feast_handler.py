"""`POST /get-online-features` over items that Feast wrote, against what Feast's own server answered."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api.feast import FeastFault
from fastserve.api.feast_columns import _times
from fastserve.api.openapi import About, openapi_document
from fastserve.errors import StoreError
from fastserve.server.application import ApplicationLimits, FeatureApplication
from fastserve.server.exchange import Exchange
from fastserve.server.feast_handler import FEATURE_LISTS, MAX_KEPT, PATH, FeastHandler
from fastserve.server.slow_log import Quota, SlowMeter, TimedFeastAnswer
from fastserve.serving.admission import Admission
from fastserve.serving.engine import Engine
from fastserve.serving.items import item_row
from fastserve.serving.on_demand import Surroundings
from fastserve.serving.transport import BASE64_ROWS
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import Answer, Connection, Readiness
from tests.server.test_slow_log import Told
from tests.support.api_plan import faults
from tests.support.feast_golden import CLOCK, CLOCK_NS, ItemStore, exchange, feast_plan, golden

TRIPS = "driver_stats:trips"
SAME = [
    "one row",
    "full names",
    "two views, one of two keys",
    "every type",
    "no entities",
    "a service",
    "aliases",
    "an entity's name",
    "columns that nobody knows",
    "latest",
    "text for a number",
    "a whole float for a number",
    "a number for text",
]
"""Requests that are answered as by Feast's server, to the value."""

TWICE = (
    400,
    "FeatureNameCollisionError",
    "Two features are named 'trips'; `full_feature_names` tells features of different views apart",
)
STRICTER = {
    "unknown view": (404, "FeatureViewNotFoundException", "Feature view 'nothing' does not exist"),
    "unknown service": (404, "FeatureServiceNotFoundException", "Feature service 'nothing' does not exist"),
    "on-demand code lacks its input": (
        404,
        "FeatureServiceNotFoundException",
        "Feature service 'with_code' does not exist",
    ),
    "unknown feature": (
        404,
        "FeastObjectNotFoundException",
        "Feature view 'driver_stats' has no feature 'nothing'",
    ),
    "no colon": (400, "FeastError", "Feature 'trips': expected <view>:<feature>"),
    "no features": (400, "FeastError", "Expected `features` or a `feature_service`, got neither"),
    "a feature twice": TWICE,
    "names collide": TWICE,
    "no entity columns": (400, "FeastError", "`entities`: expected at least one row, got none"),
    "no rows": (400, "FeastError", "`entities`: expected at least one row, got none"),
    "columns of two lengths": (
        400,
        "FeastError",
        "`entities`: expected columns of one length, got {'driver_id': 1, 'rider_id': 2}",
    ),
    "a join key lacks": (400, "FeastError", "`entities`: expected the join key 'rider_id', got none of it"),
    "all join keys lack": (
        400,
        "FeastError",
        "`entities`: expected the join key 'driver_id', got none of it",
    ),
}
INTEGER = "expected an integer from -9223372036854775808 to 9223372036854775807"
BAD_KEYS = {
    "null": "null",
    "a fraction for a number": "1.5",
    "truth for a number": "True",
    "a number too large": "9223372036854775808",
    "an object for a number": "{}",
}
MALFORMED = {
    "entities lack": ("entities",),
    "entities of another type": ("entities",),
    "a column of another type": ("entities", "driver_id"),
    "features of another type": ("features",),
    "not an object": (),
}


class World:
    """The application over the items that Feast wrote, turned by hand."""

    def __init__(self, limits: ApplicationLimits | None = None) -> None:
        plan = feast_plan()
        assert plan.feast is not None
        limits = limits or ApplicationLimits()
        self.now_s = 100.0
        self.clock_ns = CLOCK_NS
        self.scheduled: list[Callable[[], None]] = []
        self.engine = Engine(
            plan,
            BASE64_ROWS,
            schedule=self.scheduled.append,
            clock_ns=lambda: self.clock_ns,
            transcode_item=item_row,
            surroundings=Surroundings(lambda: int(self.now_s * 1e9)),
        )
        self.store = ItemStore()
        self.engine.attach(self.store.reader)
        self.admission = Admission()
        self.readiness = Readiness()
        self.feast = FeastHandler(
            plan.feast,
            self.engine,
            self.admission,
            lambda: self.clock_ns,
            lambda: self.now_s,
            self._call_later,
            limits.server_timeout_s,
            limits.max_batch_rows,
        )
        self.application = FeatureApplication(
            "rides",
            self.engine,
            self.readiness,
            lambda: self.now_s,
            self._call_later,
            limits,
            admission=self.admission,
            feast=self.feast,
        )
        self.timers: list[float] = []

    def _call_later(self, delay_s: float, function: Callable[..., None], *arguments: Any) -> None:
        self.timers.append(delay_s)

    def send(self, body: Any, method: str = "POST", path: str = PATH) -> Connection:
        connection = Connection()
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        head = RequestHead(method, path, "", len(sent), False, True, False, False, None, None, None, None)
        self.application(Exchange(connection, head, sent, self.now_s))
        return connection

    def turn(self) -> None:
        """Run what was scheduled, until nothing is."""
        while self.scheduled:
            due, self.scheduled[:] = self.scheduled[:], []
            for function in due:
                function()

    def answer(self, body: Any) -> Answer:
        """Send a request, let the store answer, and return the answer."""
        connection = self.send(body)
        self.turn()
        if self.store.open:
            self.store.answer()
            self.turn()
        (answer,) = connection.answers
        return answer


@pytest.fixture
def world() -> World:
    return World()


def by_name(answer: Any) -> dict[str, Any]:
    assert set(answer) == {"results", "metadata"}
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


def fault(answer: Answer) -> tuple[int, str, str]:
    """Return status, exception and message of an error, as Feast's SDK takes it apart."""
    detail = orjson.loads(answer.json)
    assert detail["module"] == "feast.errors"
    return answer.status, detail["class"], detail["message"]


@pytest.mark.parametrize("name", SAME)
def test_it_answers_what_feasts_server_answers(world: World, name: str) -> None:
    recorded = exchange(name)
    assert recorded["status"] == 200

    answer = world.answer(recorded["request"])

    assert answer.status == 200
    assert by_name(answer.json) == by_name(recorded["answer"])


def test_rows_past_their_ttl_are_null_where_feast_serves_them(world: World) -> None:
    recorded = exchange("some rows, one twice, one absent")
    ours = by_name(world.answer(recorded["request"]).json)
    theirs = by_name(recorded["answer"])
    late = 4

    assert theirs["trips"]["values"][late] == 13
    for name, result in theirs.items():
        if name != "driver_id":
            result["values"][late], result["statuses"][late] = None, "OUTSIDE_MAX_AGE"
    assert ours == theirs


def test_a_row_is_served_until_its_ttl_has_passed_and_not_longer(world: World) -> None:
    written_ns = CLOCK_NS - (86_400 - 1) * 10**9  # of driver -14
    request = {"features": [TRIPS], "entities": {"driver_id": [-14]}}

    world.clock_ns = written_ns + 86_400 * 10**9
    assert world.answer(request).json["results"][1]["statuses"] == ["PRESENT"]
    world.clock_ns += 1
    assert world.answer(request).json["results"][1]["statuses"] == ["OUTSIDE_MAX_AGE"]


@pytest.mark.parametrize("name", STRICTER)
def test_a_mistake_of_the_clients_is_told_and_is_no_fault_of_the_servers(world: World, name: str) -> None:
    assert fault(world.answer(exchange(name)["request"])) == STRICTER[name]
    assert not world.engine.in_flight


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_key_that_is_none_is_named_with_its_row(world: World, name: str) -> None:
    message = f"`entities.driver_id[0]`: {INTEGER}, got {BAD_KEYS[name]}"

    assert fault(world.answer(exchange(name)["request"])) == (400, "FeastError", message)


@pytest.mark.parametrize("name", MALFORMED)
def test_what_fastapi_refuses_for_feast_is_refused_alike(world: World, name: str) -> None:
    recorded = exchange(name)
    answer = world.answer(recorded["request"])

    (detail,) = answer.json["detail"]
    assert answer.status == recorded["status"] == 422
    assert detail["loc"] == ["body", *MALFORMED[name]]
    assert detail["loc"] == recorded["answer"]["detail"][0]["loc"][: len(detail["loc"])]


def test_every_recorded_exchange_is_looked_at() -> None:
    looked_at = {*SAME, *STRICTER, *BAD_KEYS, *MALFORMED, "some rows, one twice, one absent"}

    assert {each["name"] for each in golden("exchanges.json")} == looked_at


def test_rows_and_views_share_calls_and_a_key_is_read_once(world: World) -> None:
    features = [TRIPS, "ride-pairs:rides"]
    world.send({"features": features, "entities": {"driver_id": [1, 1, 2], "rider_id": ["a", "a", "b"]}})
    world.send({"features": [TRIPS], "entities": {"driver_id": [2]}})
    world.turn()

    (batch,) = world.store.batches
    assert (
        sorted(read.group.tables[0] for read in batch)
        == ["rides.driver_stats"] * 2 + ["rides.ride-pairs"] * 2
    )


def test_a_request_of_many_rows_gives_way_to_others(world: World) -> None:
    drivers = [number % 13 for number in range(200)]
    connection = world.send({"features": [TRIPS], "entities": {"driver_id": drivers}})
    world.turn()
    world.store.answer()
    assert not connection.answers
    turns = 0
    while not connection.answers:
        due, world.scheduled[:] = world.scheduled[:], []
        assert due
        turns += 1
        for function in due:
            function()

    assert turns == 6  # 32 rows at once, the first with the rows themselves
    values = connection.answers[0].json["results"][1]["values"]
    assert values == [number * 1000 if 0 < number < 12 else None for number in drivers]  # 12's day is over


def test_a_failed_read_refuses_the_request_and_is_never_an_absent_row(world: World) -> None:
    world.store.failing["rides.ride-pairs"] = StoreError("DynamoDB: no", throttled=False)
    both = {
        "features": [TRIPS, "ride-pairs:rides"],
        "entities": {"driver_id": [1], "rider_id": ["r|1"]},
    }

    assert fault(world.answer(both)) == (503, "FeastError", "The online store failed: DynamoDB: no")
    assert world.answer({"features": [TRIPS], "entities": {"driver_id": [1]}}).status == 200


@pytest.mark.parametrize("throttled, status", [(True, 429), (False, 503)])
def test_a_store_in_trouble_says_when_to_come_back(world: World, throttled: bool, status: int) -> None:
    world.store.failing["rides.driver_stats"] = StoreError("DynamoDB: slow down", throttled=throttled)
    answer = world.answer({"features": [TRIPS], "entities": {"driver_id": [1]}})

    assert answer.status == status
    assert answer.headers == {b"Retry-After": b"1"}


def test_a_column_that_no_view_asked_for_reads_is_answered_but_not_with_arrays_in_it(world: World) -> None:
    body = {"features": [TRIPS], "entities": {"driver_id": [1], "rider_id": ["r|1"]}}
    assert world.answer(body).json["results"][1]["values"] == ["r|1"]
    # orjson reads a thousand levels of arrays and writes 254.
    deep = orjson.dumps(body).replace(b'"r|1"', b"[" * 300 + b"]" * 300)
    status, _, message = fault(world.answer(deep))
    assert status == 400
    assert message.startswith("`entities.rider_id[0]`: expected a value of a join key, got [[[")


def test_times_for_keys_are_whole_seconds() -> None:
    read = _times("at", "UNIX_TIMESTAMP", 3)
    assert read([7, "1970-01-01T00:00:08Z", "1970-01-01T01:00:09.000+01:00"]) == [7, 8, 9]
    for value in ("1970-01-01T00:00:08.5Z", 8.5, "soon", None, True):
        with pytest.raises(FeastFault, match=r"`entities\.at\[0\]`: expected whole seconds since the epoch"):
            read([value])


@pytest.mark.parametrize(
    "item,reason",
    [
        ({"event_ts": {"S": "soon"}}, "attribute 'event_ts': expected an ISO-8601 time"),
        ({"event_ts": None}, "attribute 'event_ts': expected a time, got none"),
        ({"values": {"S": ""}}, "attribute 'values': expected a map of values, got none"),
        ({"values": {"M": {"trips": {"N": "1"}}}}, "feature 'trips': expected a value that Feast wrote"),
        ({"values": {"M": {"trips": {"B": "//8="}}}}, "feature 'trips': expected a value that Feast wrote"),
    ],
)
def test_a_row_that_is_not_feasts_is_an_error(world: World, item: dict[str, Any], reason: str) -> None:
    key = "rides.driver_stats", golden("keys.json")["keys"][0]["ids"]["3"]  # of driver 1
    world.store.items[key] = {**world.store.items[key], **item}

    status, _, message = fault(world.answer({"features": [TRIPS], "entities": {"driver_id": [1]}}))
    assert status == 503
    assert message.startswith("A row of view 'driver_stats' in table rides.driver_stats can't be read: ")
    assert reason in message


def test_a_deadline_ends_the_wait(world: World) -> None:
    connection = world.send({"features": [TRIPS], "entities": {"driver_id": [1]}})
    world.turn()
    world.now_s += 2.5
    world.engine.expire(world.now_s)

    (answer,) = connection.answers
    assert fault(answer) == (504, "FeastError", "No answer within the timeout of 2 s")
    world.store.answer()
    assert len(connection.answers) == 1


def test_more_rows_than_are_answered_at_once_are_refused() -> None:
    world = World(ApplicationLimits(max_batch_rows=2))
    answer = world.answer({"features": [TRIPS], "entities": {"driver_id": [1, 2, 3]}})

    assert fault(answer) == (400, "FeastError", "`entities`: expected at most 2 rows, got 3")


def test_rows_count_as_vectors_in_flight_until_they_are_answered(world: World) -> None:
    free = world.admission.limit
    world.send({"features": [TRIPS], "entities": {"driver_id": [1, 2, 3]}})
    assert world.admission.limit == free - 2
    world.turn()
    world.store.answer()
    assert world.admission.limit == free


def test_only_so_many_lists_of_features_are_kept(world: World) -> None:
    names = [f"every_type:{field}" for field in ("raw", "text", "small", "big", "single", "double")]
    lists = [list(some) for count in range(1, 5) for some in permutations(names, count)]
    assert len(lists) > MAX_KEPT
    for features in lists[: MAX_KEPT + 5]:
        assert world.answer({"features": features, "entities": {"city_code": [8002]}}).status == 200

    assert len(world.feast._kept) == MAX_KEPT
    assert world.feast._kept_names == sum(len(each.names) for each in world.feast._kept.values())


def test_only_so_many_features_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastserve.server.feast_handler.MAX_KEPT_NAMES", 5)
    names = [f"every_type:{field}" for field in ("raw", "text", "small")]
    for features in permutations(names):
        world.answer({"features": list(features), "entities": {"city_code": [8002]}})
    assert [len(each.names) for each in world.feast._kept.values()] == [3]


def test_a_slow_request_is_told_with_its_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tests.server.test_feast_handler.Connection", Told)
    meter = SlowMeter(FEATURE_LISTS, 0.0, Quota(lambda: 0.5))
    world.application.measure({FEATURE_LISTS: meter}, feast=TimedFeastAnswer)
    features = [TRIPS, "ride-pairs:rides"]
    world.answer({"features": features, "entities": {"driver_id": [1, 1, 2], "rider_id": ["a", "a", "b"]}})
    world.answer({"features": features, "entities": {"driver_id": [1]}})
    assert [" 3 vectors, 6 keys; reads " in message for message in caplog.messages] == [True, False]
    assert caplog.messages[1].endswith("answered without rows")
    (told, _) = [getattr(record, "fields") for record in caplog.records]  # noqa: B009 - mypy knows no extras
    assert told["encode_ms"] > 0


def test_health_is_a_status_without_a_body(world: World) -> None:
    (answer,) = world.send(None, "GET", "/health").answers
    assert (answer.status, answer.body) == (200, b"")
    world.readiness.is_ready = False
    (answer,) = world.send(None, "GET", "/health").answers
    assert (answer.status, answer.body) == (503, b"")


def test_another_method_is_told_the_right_one(world: World) -> None:
    (answer,) = world.send(None, "GET").answers

    assert answer.status == 405
    assert answer.headers[b"Allow"] == b"POST"


def test_the_same_rows_are_served_by_the_other_api(world: World) -> None:
    path = "/api/v1/feature-service/get-features"
    params = {"featureServiceName": "ride-price.v1", "joinKeyMap": {"driver_id": 1, "rider_id": "r|1"}}
    connection = world.send({"params": params}, path=path)
    world.turn()
    world.store.answer()

    (answer,) = connection.answers
    assert answer.json == {"result": {"features": [0.1, "1000", 12.5]}}


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=8)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
COLUMN_NAMES = st.sampled_from(["driver_id", "rider_id", "driver", "city_code", "x"])
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "entities": ANYTHING
        | st.dictionaries(COLUMN_NAMES, st.lists(SCALARS, max_size=3) | ANYTHING, max_size=3),
        "features": ANYTHING
        | st.lists(
            st.sampled_from([TRIPS, "ride-pairs:rides", "totals:rides_today", "a", "x:y"]), max_size=3
        ),
        "feature_service": st.sampled_from([None, "", "ride-price.v1", "both_drivers", "with_code"])
        | ANYTHING,
        "full_feature_names": st.booleans() | ANYTHING,
    },
)


@given(BODIES | ANYTHING)
@settings(max_examples=150)
def test_whatever_comes_is_answered_and_never_a_fault_of_the_servers(body: Any) -> None:
    world = World()

    assert world.answer(body).status in {200, 400, 404, 422}
    assert not world.engine.in_flight
    assert world.admission.limit == World().admission.limit


@pytest.mark.parametrize("status", [200, 400, 404, 422, 429, 500, 503, 504])
def test_every_answer_is_as_the_document_says(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = feast_plan()
    document = openapi_document(plan, About("1", False, 1000, CLOCK))
    response = document["paths"][PATH]["post"]["responses"][str(status)]
    schema = response["content"]["application/json"]["schema"]
    answers = answers_of(status, monkeypatch)
    assert answers
    for answer in answers:
        assert answer.status == status
        assert faults(document, schema, answer.json) == []


def answers_of(status: int, monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """Return answers with a status, one for each form that such have."""
    good = {"features": [TRIPS], "entities": {"driver_id": [1]}}
    if status in {200, 400, 404, 422}:
        recorded = [world_answer(each["request"]) for each in golden("exchanges.json")]
        return [answer for answer in recorded if answer.status == status]
    if status == 504:
        world = World()
        connection = world.send(good)
        world.turn()
        world.now_s += 2.5
        world.engine.expire(world.now_s)
        return connection.answers
    if status == 500:
        world = World()
        monkeypatch.setattr(world.feast, "submit", lambda _: 1 / 0)
        return [world.answer(good)]
    failing = World()
    failing.store.failing["rides.driver_stats"] = StoreError("no", throttled=status == 429)
    shedding = World()
    shedding.admission.hold(10**9)
    return [failing.answer(good), *[each for each in shedding.send(good).answers if each.status == status]]


def world_answer(body: Any) -> Answer:
    return World().answer(body)
