from __future__ import annotations

from typing import Any

import pytest

from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.row_format import AttributesFormat
from fastserve.serving.items import item_row
from fastserve.tiles.rows import RowError, decode_row, effective_ns_of
from tests.support.plans import TTL, attribute_view

SECOND_NS = 1_000_000_000


def view(ttl: bool = False, timestamp: str | None = "at") -> ViewPlan:
    row_format = AttributesFormat("pk", timestamp_attribute=timestamp)
    return plan_view(attribute_view("v", row_format=row_format, ttl=TTL if ttl else None), "w", "")


def values_of(**item: Any) -> dict[str, Any]:
    plan = view()
    return decode_row(plan.layout, item_row(plan, item))


def test_every_type_is_read_from_its_attribute() -> None:
    item = {
        "a_int": {"N": "9223372036854775807"},
        "b_float": {"N": "0.1"},
        "c_single": {"N": "0.5"},
        "d_text": {"S": 'a"b'},
        "e_bool": {"BOOL": True},
        "f_time": {"S": "1970-01-01T00:00:01Z"},
        "g_array": {"L": [{"N": "1"}, {"NULL": True}]},
        "h_struct": {"M": {"y": {"S": "s"}, "extra": {"S": "?"}}},
        "i_map": {"M": {"k": {"N": "2"}}},
        "nobody": {"S": "asks for this"},
    }
    assert values_of(**item) == {
        "a_int": 2**63 - 1,
        "b_float": 0.1,
        "c_single": 0.5,
        "d_text": b'"a\\"b"',
        "e_bool": True,
        "f_time": SECOND_NS,
        "g_array": b'["1",null]',
        "h_struct": b'[null,"s"]',
        "i_map": b'{"k":"2"}',
        "j_float": None,
    }


def test_sets_are_arrays_and_times_may_be_nanoseconds() -> None:
    assert values_of(g_array={"NS": ["1", "2"]})["g_array"] == b'["1","2"]'
    assert values_of(f_time={"N": "5"})["f_time"] == 5


def test_absent_and_null_attributes_are_null() -> None:
    assert set(values_of().values()) == {None}
    assert values_of(a_int={"NULL": True})["a_int"] is None


def test_the_smallest_int64_is_a_value() -> None:
    assert values_of(a_int={"N": str(-(2**63))})["a_int"] == -(2**63)


@pytest.mark.parametrize(
    "name, attribute",
    [
        ("a_int", {"N": "1.5"}),
        ("a_int", {"N": str(2**63)}),
        ("a_int", {"N": "1e3"}),
        ("a_int", {"S": "1"}),
        ("b_float", {"S": "1"}),
        ("b_float", {"N": "x"}),
        ("d_text", {"N": "1"}),
        ("d_text", {"S": 1}),
        ("e_bool", {"N": "1"}),
        ("e_bool", {"BOOL": "true"}),
        ("f_time", {"S": "yesterday"}),
        ("f_time", {"S": "0001-01-01T00:00:00+01:00"}),
        ("f_time", {"N": "1.5"}),
        ("g_array", {"S": "[]"}),
        ("g_array", {"L": [{"S": "1"}]}),
        ("h_struct", {"L": []}),
        ("i_map", {"M": {"k": {"S": "2"}}}),
        ("i_map", {"M": []}),
    ],
    ids=repr,
)
def test_an_attribute_of_another_type_makes_the_row_unreadable(name: str, attribute: Any) -> None:
    with pytest.raises(RowError) as caught:
        values_of(**{name: attribute})
    assert str(caught.value).startswith(f"attribute '{name}': expected ")
    assert len(str(caught.value)) < 200


def test_the_effective_time_is_that_of_the_timestamp_attribute() -> None:
    plan = view()
    assert effective_ns_of(item_row(plan, {"at": {"S": "1970-01-01T00:00:02Z"}})) == 2 * SECOND_NS
    assert effective_ns_of(item_row(plan, {})) == 0
    assert effective_ns_of(item_row(view(timestamp=None), {"at": {"N": "7"}})) == 0


def test_a_row_that_may_expire_must_have_a_time() -> None:
    with pytest.raises(RowError, match=r"attribute 'at': expected a time, got none"):
        item_row(view(ttl=True), {})
