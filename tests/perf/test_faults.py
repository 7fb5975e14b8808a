from __future__ import annotations

import pytest

from perf.load.dynamo_error import DynamoError
from perf.load.faults import FaultPlan, Faults


def test_a_script_comes_first_and_then_the_shares() -> None:
    faults = Faults(FaultPlan(script=("throttle", "ok", "stall"), wrong_crc_share=1.0))

    assert [faults.fate("BatchGetItem") for _ in range(4)] == ["throttle", "ok", "stall", "wrong_crc"]


def test_shares_are_drawn_as_asked_and_repeat_with_the_seed() -> None:
    plan = FaultPlan(throttle_share=0.2, drop_connection_share=0.1)
    one, other = Faults(plan), Faults(plan)

    fates = [one.fate("GetItem") for _ in range(10_000)]

    assert fates.count("throttle") == pytest.approx(2_000, abs=200)
    assert fates.count("drop_connection") == pytest.approx(1_000, abs=150)
    assert fates == [other.fate("GetItem") for _ in range(10_000)]


def test_other_operations_are_left_alone() -> None:
    faults = Faults(FaultPlan(throttle_share=1.0, unprocessed_share=0.9))

    assert faults.fate("DescribeTable") == "ok"
    assert faults.unprocessed("BatchWriteItem", 25) == set()


def test_a_call_is_never_unprocessed_as_a_whole() -> None:
    faults = Faults(FaultPlan(unprocessed_share=1.0))

    assert len(faults.unprocessed("BatchGetItem", 10)) == 9
    assert faults.unprocessed("BatchGetItem", 1) == set()


@pytest.mark.parametrize("wanted", [{"no_such_share": 1}, {"script": ["explode"]}])
def test_unknown_faults_are_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(DynamoError, match="unknown faults"):
        FaultPlan.from_json(wanted)
