"""Requests through the application, held against golden answers and the words of the API's description.

Golden answers are kept in tests/golden/answers; after a change that is meant, `UPDATE_GOLDEN=1` writes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.errors import StoreError
from fastserve.plan.service import MAX_STORE_BYTES
from fastserve.server.application import ApplicationLimits
from tests.server.application_world import KEYS, V1, V2, VALUES, Answer, ApplicationWorld, is_refused
from tests.serving.fake_store import number_of, own_row
from tests.support.plans import NOW_NS, TTL_NS, attribute_row

GOLDEN = Path(__file__).parents[1] / "golden" / "answers"
OPTIONS = [
    "Names",
    "DataTypes",
    "EffectiveTimes",
    "SloInfo",
    "ServingStatus",
    "FeatureDescriptions",
    "FeatureTags",
]
ALL = {f"include{name}": True for name in OPTIONS}


def is_golden(name: str, answer: Answer) -> None:
    """Compare the answer's exact members and their order with the file's."""
    assert (answer.status, answer.content_type) == (200, b"application/json")
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(answer.json, indent=1) + "\n", encoding="utf-8")
    assert json.dumps(answer.json) == json.dumps(json.loads(path.read_text(encoding="utf-8")))


def statuses(answer: Answer) -> list[Any]:
    return [feature["status"] for feature in answer.json["metadata"]["features"]]


# --- values and metadata ---------------------------------------------------------------------------------


def test_an_answer_without_metadata_holds_the_values_and_nothing_else(world: ApplicationWorld) -> None:
    answer = world.features("fraud:v2", KEYS)
    assert answer.json == {"result": {"features": VALUES}}
    assert answer.body == b'{"result":{"features":["30001",15000.5,"55","30001",30001.0]}}'


def test_metadata_of_which_nothing_was_asked_for_is_left_out(world: ApplicationWorld) -> None:
    answer = world.features("fraud:v2", KEYS, metadataOptions=dict.fromkeys(ALL, False))
    assert list(answer.json) == ["result"]


@pytest.mark.parametrize("option", OPTIONS)
def test_each_metadata_option_gives_its_own_members(world: ApplicationWorld, option: str) -> None:
    is_golden(option, world.features("fraud:v2", KEYS, metadataOptions={f"include{option}": True}))


def test_all_metadata_options_together(world: ApplicationWorld) -> None:
    is_golden("all", world.features("fraud:v2", KEYS, metadataOptions=ALL))


def test_all_types_with_all_metadata(world: ApplicationWorld) -> None:
    is_golden("types", world.features("types", {"user_id": "u1"}, metadataOptions=ALL))


def test_a_batch_with_all_metadata(world: ApplicationWorld) -> None:
    world.store.rows["w.numbers", "u2"] = None
    is_golden("batch", world.batch("fraud:v2", [KEYS, {"user_id": "u2", "shop_id": 8}], metadataOptions=ALL))


@pytest.mark.parametrize("service", ["fraud:v2", "types"])
def test_the_metadata_of_a_service(world: ApplicationWorld, service: str) -> None:
    answer = world.post("metadata", workspaceName="w", featureServiceName=service)
    is_golden(f"metadata_{service.replace(':', '_')}", answer)
    assert world.ask("GET", f"{V2}{service}/metadata").body == answer.body
    assert world.ask("GET", f"{V2}{service.replace(':', '%3A')}/metadata").body == answer.body
    assert world.ask("HEAD", f"{V2}{service}/metadata").body == answer.body


# --- statuses --------------------------------------------------------------------------------------------


def test_statuses_tell_a_stored_null_from_a_missing_and_an_expired_row(world: ApplicationWorld) -> None:
    view = world.plan.views["profile"]
    wrap = world.store.transport.wrap
    world.store.rows["w.profile", "gone"] = None
    world.store.rows["w.profile", "old"] = wrap(own_row(view, "old", NOW_NS - TTL_NS - 1))
    options = {"includeServingStatus": True, "includeEffectiveTimes": True, "includeNames": True}
    for key, status in (("u1", "PRESENT"), ("gone", "MISSING_DATA"), ("old", "MISSING_DATA")):
        answer = world.features("types", {"user_id": key}, metadataOptions=options)
        assert set(statuses(answer)) == {status}
        times = ["effectiveTime" in feature for feature in answer.json["metadata"]["features"]]
        assert set(times) == {status == "PRESENT"}
    answer = world.features("types", {"user_id": "u1"}, metadataOptions=options)
    assert answer.json["result"]["features"][2] is None  # a stored null


def test_a_failed_read_is_refused_unless_partial_results_are_welcome(world: ApplicationWorld) -> None:
    world.store.failing["u1"] = StoreError("no route to host")
    refused = world.features("fraud:v2", KEYS)
    is_refused(refused, 503, 14, "The online store failed: no route to host")
    assert refused.headers == {b"Retry-After": b"1"}
    answer = world.features(
        "fraud:v2", KEYS, allowPartialResults=True, metadataOptions={"includeServingStatus": True}
    )
    assert answer.json["result"]["features"] == [None, None, "55", None, None]
    assert statuses(answer) == ["UNKNOWN", "UNKNOWN", "PRESENT", "UNKNOWN", "UNKNOWN"]


def test_partial_results_come_without_metadata_too(world: ApplicationWorld) -> None:
    world.store.failing["u1"] = StoreError("down")
    answer = world.features("fraud:v2", KEYS, allowPartialResults=True)
    assert answer.json == {"result": {"features": [None, None, "55", None, None]}}


def test_a_throttled_read_is_told_as_such(world: ApplicationWorld) -> None:
    world.store.failing["u1"] = StoreError("too many", throttled=True)
    is_refused(world.features("plain", {"user_id": "u1"}), 429, 8, "The online store failed: too many")


def test_a_corrupt_row_is_refused_and_the_requests_beside_it_are_not(world: ApplicationWorld) -> None:
    world.store.rows["w.numbers", "u1"] = world.store.transport.wrap(b"\x01" * 24)
    bodies = [
        orjson.dumps({"params": {"featureServiceName": "plain", "joinKeyMap": {"user_id": key}}})
        for key in ("u0", "u1", "u2")
    ]
    connections = [world.send("POST", V1 + "get-features", body) for body in bodies]
    world.turn()
    world.store.answer()
    good, bad, other = [connection.answers[0] for connection in connections]
    assert good.json["result"]["features"] == [str(number_of("u0")), number_of("u0") / 2]
    assert other.json["result"]["features"] == [str(number_of("u2")), number_of("u2") / 2]
    assert bad.status == 503
    assert bad.json["message"].startswith("A row of view `numbers` in table w.numbers can't be read: ")
    answer = world.features(
        "plain", {"user_id": "u1"}, allowPartialResults=True, metadataOptions={"includeServingStatus": True}
    )
    assert (answer.json["result"]["features"], statuses(answer)) == ([None, None], ["UNKNOWN", "UNKNOWN"])


def test_a_count_over_nothing_is_null_unless_zero_is_asked_for(world: ApplicationWorld) -> None:
    world.store.rows["w.spending", "u1"] = None
    assert world.features("fraud:v2", KEYS).json["result"]["features"][3] is None
    options = {"coerceNullCountsToZero": True}
    assert world.features("fraud:v2", KEYS, requestOptions=options).json["result"]["features"][3] == "0"
    world.store.failing["u1"] = StoreError("down")
    answer = world.features("fraud:v2", KEYS, requestOptions=options, allowPartialResults=True)
    assert answer.json["result"]["features"][3] is None


def test_items_of_an_ordinary_table_are_read_by_their_own_names(world: ApplicationWorld) -> None:
    key = next(iter(world.plan.services["items"].reads)).group
    text = orjson.dumps({"pk": {"S": "u1"}}).decode()
    item = {
        "pk": {"S": "u1"},
        "d_text": {"S": "x"},
        "a_int": {"N": "9007199254740993"},
        "at": {"S": "2024-10-04"},
    }
    world.store.rows[key.tables[0], text] = item
    answer = world.features(
        "items", {"user_id": "u1"}, metadataOptions={"includeEffectiveTimes": True, "includeSloInfo": True}
    )
    assert answer.json["result"]["features"] == ["9007199254740993", "x"]
    assert answer.json["metadata"]["features"] == [{"effectiveTime": "2024-10-04T00:00:00Z"}] * 2
    assert answer.json["metadata"]["sloInfo"]["storeResponseSizeBytes"] == len(orjson.dumps(item))


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+01:00", "yesterday"])
def test_an_item_that_does_not_fit_its_view_is_unreadable(world: ApplicationWorld, at: str) -> None:
    group = world.plan.services["items"].reads[0].group
    world.store.rows[group.tables[0], '{"pk":{"S":"u1"}}'] = {"at": {"S": at}, "a_int": {"N": "1"}}
    answer = world.features("items", {"user_id": "u1"})
    assert answer.status == 503
    assert "attribute 'at': expected timestamp" in answer.json["message"]


# --- time ------------------------------------------------------------------------------------------------


def sent(world: ApplicationWorld, **params: Any) -> Callable[[], Answer | None]:
    """Send one request and return what tells its answer, None while there is none."""
    body = orjson.dumps({"params": {"featureServiceName": "fraud:v2", "joinKeyMap": KEYS, **params}})
    connection = world.send("POST", V1 + "get-features", body)
    world.turn()

    def answer() -> Answer | None:
        assert len(connection.answers) < 2
        return connection.answers[0] if connection.answers else None

    return answer


def test_after_the_server_timeout_a_request_is_refused_and_late_rows_are_dropped(
    world: ApplicationWorld,
) -> None:
    answer = sent(world)
    world.wait(1.999)
    assert answer() is None
    world.wait(0.001)
    refused = answer()
    assert refused is not None
    is_refused(refused, 504, 4, "No answer within the server timeout of 2 s")
    world.store.answer()
    assert answer() is refused


@pytest.mark.parametrize("budget", [50, "50"], ids=repr)
def test_at_the_latency_budget_what_has_come_is_answered(world: ApplicationWorld, budget: Any) -> None:
    options = {"latencyBudgetMs": budget, "coerceNullCountsToZero": True}
    answer = sent(world, requestOptions=options, metadataOptions={"includeServingStatus": True})
    world.store.answer("7")
    world.wait(0.049)
    assert answer() is None
    world.wait(0.001)
    got = answer()
    assert got is not None
    assert got.json["result"]["features"] == [None, None, "55", None, None]
    assert statuses(got) == ["TIME_OUT", "TIME_OUT", "PRESENT", "TIME_OUT", "TIME_OUT"]
    world.store.answer()
    assert answer() is got


def test_a_budget_s_answer_has_the_same_values_without_metadata(world: ApplicationWorld) -> None:
    answer = sent(world, requestOptions={"latencyBudgetMs": 50})
    world.store.answer("7")
    world.wait(0.05)
    got = answer()
    assert got is not None
    assert got.json == {"result": {"features": [None, None, "55", None, None]}}


def test_a_budget_beyond_the_server_timeout_does_not_lengthen_it(world: ApplicationWorld) -> None:
    answer = sent(world, requestOptions={"latencyBudgetMs": 60_000})
    world.wait(2.0)
    refused = answer()
    assert refused is not None
    assert refused.status == 504


def test_a_read_that_fails_because_time_is_over_is_told_as_late(world: ApplicationWorld) -> None:
    world.store.failing["u1"] = StoreError("no answer in time", timed_out=True)
    plain, budget = sent(world), sent(world, requestOptions={"latencyBudgetMs": 1999})
    world.now_s += 1.9985
    world.store.answer()
    refused, got = plain(), budget()
    assert refused is not None
    assert got is not None
    is_refused(refused, 504, 4, "No answer within the server timeout of 2 s")
    assert got.json == {"result": {"features": [None, None, "55", None, None]}}


def test_a_read_that_times_out_before_the_request_does_is_a_failed_read(world: ApplicationWorld) -> None:
    world.store.failing["u1"] = StoreError("no answer in time", timed_out=True)
    is_refused(world.features("fraud:v2", KEYS), 503, 14, "The online store failed: no answer in time")


def test_rows_that_come_in_time_are_answered_at_once_whatever_the_budget(world: ApplicationWorld) -> None:
    answer = sent(world, requestOptions={"latencyBudgetMs": 50})
    world.store.answer()
    got = answer()
    assert got is not None
    assert got.json == {"result": {"features": VALUES}}
    world.wait(0.1)
    assert answer() is got


def test_slo_info_tells_times_and_bytes(world: ApplicationWorld) -> None:
    answer = sent(world, metadataOptions={"includeSloInfo": True})
    world.now_s += 0.25
    world.store.answer()
    got = answer()
    assert got is not None
    rows = [world.store.row(t, k) for t, k in (("w.numbers", "u1"), ("w.spending", "u1"), ("w.shop", "7"))]
    assert got.json["metadata"] == {
        "sloInfo": {
            "sloEligible": True,
            "sloServerTimeSeconds": 0.25,
            "serverTimeSeconds": 0.25,
            "storeMaxLatency": 0.25,
            "storeResponseSizeBytes": sum(map(len, rows)) * 3 // 4,
        }
    }


def test_the_store_s_latency_ends_when_the_rows_are_there(world: ApplicationWorld) -> None:
    rows = [{"join_key_map": {"user_id": f"u{number}"}} for number in range(70)]
    params = {
        "featureServiceName": "plain",
        "request_data": rows,
        "metadataOptions": {"includeSloInfo": True},
    }
    for runtime in world.engine.services.values():
        runtime.lines_at_once = 8
    connection = world.send("POST", V1 + "get-features-batch", orjson.dumps({"params": params}))
    world.turn()
    world.now_s += 0.5
    world.store.answer()
    assert connection.answers == []  # the loop has its turn between parts
    world.now_s += 0.25
    world.turn()
    slo = connection.answers[0].json["metadata"]["batchSloInfo"]
    assert (slo["storeMaxLatency"], slo["serverTimeSeconds"]) == (0.5, 0.75)


def large(world: ApplicationWorld, key: str) -> None:
    text = b'"' + b"x" * MAX_STORE_BYTES + b'"'
    row = attribute_row(world.plan.views["profile"], {"d_text": text})
    world.store.rows["w.profile", key] = world.store.transport.wrap(row)


def test_a_vector_of_more_bytes_than_the_service_level_is_for_is_refused(world: ApplicationWorld) -> None:
    large(world, "u1")
    answer = world.features("types", {"user_id": "u1"})
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert answer.json["message"].startswith(
        "DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED: "
        f"expected at most {MAX_STORE_BYTES} bytes from the store, got "
    )


def test_a_large_vector_is_a_partial_result(world: ApplicationWorld) -> None:
    large(world, "u1")
    options = {"includeSloInfo": True}
    answer = world.batch(
        "types", [{"user_id": "u0"}, {"user_id": "u1"}], allowPartialResults=True, metadataOptions=options
    )
    small, big = answer.json["metadata"]["sloInfo"]
    whole = answer.json["metadata"]["batchSloInfo"]
    assert len(answer.json["result"][1]["features"][3]) == MAX_STORE_BYTES
    assert (small["sloEligible"], big["sloEligible"], whole["sloEligible"]) == (True, False, False)
    assert "sloIneligibilityReasons" not in small
    assert big["sloIneligibilityReasons"] == ["DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED"]
    assert whole["storeResponseSizeBytes"] == small["storeResponseSizeBytes"] + big["storeResponseSizeBytes"]


# --- batches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 33, 100])
def test_a_batch_is_answered_in_request_order(world: ApplicationWorld, count: int) -> None:
    keys = [{"user_id": f"u{number}", "shop_id": str(number % 3)} for number in range(count)]
    answer = world.batch("fraud:v2", keys, metadataOptions={"includeServingStatus": True})
    numbers = [number_of(f"u{number}") for number in range(count)]
    shops = [str(number_of(str(number % 3))) for number in range(count)]
    assert answer.json["result"] == [
        {"features": [str(n), n / 2, shop, str(n), float(n)]} for n, shop in zip(numbers, shops, strict=True)
    ]
    assert statuses(answer) == [["PRESENT"] * count] * 5


def test_one_failed_row_of_a_batch_is_its_own(world: ApplicationWorld) -> None:
    world.store.failing["u40"] = StoreError("down")
    keys = [{"user_id": f"u{number}"} for number in range(70)]
    is_refused(world.batch("plain", keys), 503, 14, "The online store failed: down")
    answer = world.batch(
        "plain", keys, allowPartialResults=True, metadataOptions={"includeServingStatus": True}
    )
    expected = ["UNKNOWN" if number == 40 else "PRESENT" for number in range(70)]
    assert statuses(answer) == [expected, expected]
    assert answer.json["result"][40] == {"features": [None, None]}
    assert answer.json["result"][41]["features"][0] == str(number_of("u41"))


def test_a_batch_has_at_most_as_many_rows_as_the_server_takes() -> None:
    world = ApplicationWorld(ApplicationLimits(max_batch_rows=2))
    answer = world.batch("plain", [{"user_id": "u"}] * 3)
    is_refused(answer, 400, 3, "Field `request_data`: expected at most 2 rows, got 3")
    answer = ApplicationWorld().batch("plain", [{"user_id": f"u{n}"} for n in range(1000)])
    assert len(answer.json["result"]) == 1000


def test_a_batch_s_faults_name_the_row(world: ApplicationWorld) -> None:
    missing = world.batch("plain", [{"user_id": "u"}, {}])
    is_refused(missing, 400, 3, "Missing required join key: `user_id` (request_data[1])")
    wrong = world.batch("plain", [{"user_id": 7}])
    message = "Join key `user_id`: expected string, got integer 7 (request_data[0])"
    is_refused(wrong, 400, 3, message)
    extra = world.batch("plain", [{"user_id": "u", "x": 1}])
    is_refused(extra, 400, 3, "Unknown join key (request_data[0]): expected `user_id`, got 'x'")
    rows = [{"join_key_map": {"user_id": "u"}, "request_context_map": {"amount": 1}}]
    context = world.post("get-features-batch", featureServiceName="plain", request_data=rows)
    message = "Unknown request context field (request_data[0]): expected none, got 'amount'"
    is_refused(context, 400, 3, message)


def test_a_batch_s_budget_gives_each_row_what_has_come(world: ApplicationWorld) -> None:
    rows = [{"join_key_map": {"user_id": f"u{number}"}} for number in range(3)]
    params = {
        "featureServiceName": "plain",
        "requestData": rows,
        "requestOptions": {"latencyBudgetMs": 10},
        "metadataOptions": {"includeServingStatus": True},
    }
    connection = world.send("POST", V1 + "get-features-batch", orjson.dumps({"params": params}))
    world.turn()
    world.store.answer("u1")
    world.wait(0.01)
    (answer,) = connection.answers
    assert statuses(answer) == [["TIME_OUT", "PRESENT", "TIME_OUT"]] * 2


# --- what nobody foresaw ---------------------------------------------------------------------------------

INTERNAL = "Internal error; the server's log has the details"


def test_rows_that_can_t_be_evaluated_are_answered_and_logged(
    world: ApplicationWorld, caplog: pytest.LogCaptureFixture
) -> None:
    answer = sent(world)
    beside = sent(world, joinKeyMap={"user_id": "u2", "shop_id": 7})
    for read in world.store.open:
        world.store.fill(read)
        if read.key == "u1":
            read.rows = read.rows * 2  # more rows than tables
    world.store.settle(world.store.open)
    refused, good = answer(), beside()
    assert refused is not None
    assert good is not None
    is_refused(refused, 500, 13, INTERNAL)
    assert good.status == 200
    assert "a request to /api/v1/feature-service/get-features failed" in caplog.text
    assert "Traceback" in caplog.text


def test_a_fault_while_a_request_is_taken_in_is_answered_and_logged(
    world: ApplicationWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(world.engine, "submit", broken)
    is_refused(world.features("plain", {"user_id": "u"}), 500, 13, INTERNAL)
    assert "by accident" in caplog.text
    assert world.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b"[]", b'{"params":' + b"[" * 5000])
@pytest.mark.parametrize("action", ["get-features", "get-features-batch", "metadata"])
def test_any_bytes_for_a_body_are_answered(world: ApplicationWorld, action: str, body: bytes) -> None:
    answer = world.ask("POST", V1 + action, body)
    assert (answer.status, answer.json["code"]) == (400, 3)
