from __future__ import annotations

import orjson
import pytest

from fastserve.api.decode import INCLUDE_EFFECTIVE_TIMES, INCLUDE_NAMES, INCLUDE_STATUS
from fastserve.api.metadata import (
    TIME_OUT,
    UNKNOWN,
    MetadataEncoder,
    RowFacts,
    Timing,
    service_metadata,
    slo_info,
    slo_part,
)
from fastserve.plan.service import MAX_STORE_BYTES
from fastserve.tiles.layout import NULL_INT64
from tests.support.plans import attribute_view, workspace_plan

PLAN = workspace_plan(
    {"s": [attribute_view("a", ["a_int"]), attribute_view("b", ["a_int", "b_float"])]}
).services["s"]
PLACES = {place.view.name: place.number for place in PLAN.places}
BOTH = INCLUDE_EFFECTIVE_TIMES | INCLUDE_STATUS


def effective(a: int, b: int) -> list[int]:
    times = [0, 0]
    times[PLACES["a"]], times[PLACES["b"]] = a, b
    return times


def features(flags: int, *rows: RowFacts, batch: bool = False) -> list[dict[str, object]]:
    read: list[dict[str, object]] = orjson.loads(MetadataEncoder(PLAN).features(flags, rows, batch=batch))
    return read


def test_a_row_s_time_and_status_are_those_of_all_its_features() -> None:
    second = {"effectiveTime": "1970-01-01T00:00:01Z", "status": "PRESENT"}
    assert features(BOTH, RowFacts(effective(NULL_INT64, 10**9))) == [
        {"status": "MISSING_DATA"},
        second,
        second,
    ]


@pytest.mark.parametrize("status", [UNKNOWN, TIME_OUT])
def test_a_row_that_failed_or_has_not_come_is_not_told_as_missing(status: bytes) -> None:
    facts = RowFacts(effective(NULL_INT64, 0), {PLACES["a"]: status})
    assert [f["status"] for f in features(BOTH, facts)] == [orjson.loads(status), "PRESENT", "PRESENT"]


def test_a_batch_has_a_status_per_row_and_the_oldest_time() -> None:
    rows = [
        RowFacts(effective(3 * 10**9, NULL_INT64)),
        RowFacts(effective(2 * 10**9, NULL_INT64)),
        RowFacts(effective(NULL_INT64, NULL_INT64), {PLACES["b"]: UNKNOWN}),
    ]
    first, *others = features(BOTH | INCLUDE_NAMES, *rows, batch=True)
    assert first == {
        "name": "a.a_int",
        "effectiveTime": "1970-01-01T00:00:02Z",
        "status": ["PRESENT", "PRESENT", "MISSING_DATA"],
    }
    assert [other["status"] for other in others] == [["MISSING_DATA", "MISSING_DATA", "UNKNOWN"]] * 2
    assert not any("effectiveTime" in other for other in others)


def test_a_batch_of_one_row_still_has_lists() -> None:
    assert features(INCLUDE_STATUS, RowFacts(effective(0, 0)), batch=True)[0] == {"status": ["PRESENT"]}


def test_the_service_level_covers_two_mebibytes_and_not_a_byte_more() -> None:
    timing = Timing(0.0041234567, 0.0034, [MAX_STORE_BYTES])
    assert slo_info(timing, MAX_STORE_BYTES) == {
        "sloEligible": True,
        "sloServerTimeSeconds": 0.004123,
        "serverTimeSeconds": 0.004123,
        "storeMaxLatency": 0.0034,
        "storeResponseSizeBytes": MAX_STORE_BYTES,
    }
    over = slo_info(timing, MAX_STORE_BYTES + 1)
    assert over["sloEligible"] is False
    assert over["sloIneligibilityReasons"] == ["DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED"]


def test_one_vector_has_one_slo_info_and_a_batch_one_for_each_and_one_over_all() -> None:
    timing = Timing(0.5, 0.25, [10, 20])
    one = orjson.loads(b"{" + slo_part(Timing(0.5, 0.25, [10]), batch=False) + b"}")
    assert one == {"sloInfo": slo_info(timing, 10)}
    many = orjson.loads(b"{" + slo_part(timing, batch=True) + b"}")
    assert many == {
        "sloInfo": [slo_info(timing, 10), slo_info(timing, 20)],
        "batchSloInfo": slo_info(timing, 20) | {"storeResponseSizeBytes": 30},
    }


def test_the_metadata_endpoint_leaves_out_empty_lists() -> None:
    answer = orjson.loads(service_metadata(PLAN))
    assert list(answer) == ["featureServiceType", "inputJoinKeys", "featureValues"]
    assert answer["inputJoinKeys"] == [{"name": "user_id", "dataType": {"type": "string"}, "type": "string"}]
    assert [value["name"] for value in answer["featureValues"]] == ["a.a_int", "b.a_int", "b.b_float"]
