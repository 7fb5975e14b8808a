"""Feast's values, against those that Feast wrote and those that a twin writes."""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire.feast_values import MANY, value_of, values_of_texts
from fastserve.wire.protobuf import ProtobufError
from tests.support.feast_golden import golden
from tests.wire.protobuf_twin import field_bytes, fixed_bytes, varint_bytes

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
DOUBLES = st.floats(width=64)


def as_json(value: Any) -> Any:
    """Return a value as Feast's server writes it: floats that JSON lacks are texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [as_json(each) for each in value]
    return {key: as_json(each) for key, each in value.items()} if isinstance(value, dict) else value


def double(value: float) -> bytes:
    return fixed_bytes(5, struct.pack("<d", value))


@pytest.mark.parametrize("number", range(len(golden("values.json"))))
def test_a_value_that_feast_wrote_is_what_feasts_server_answers(number: int) -> None:
    written, expected = golden("values.json")[number]

    (found,) = values_of_texts([written])
    assert as_json(found) == expected
    assert type(as_json(found)) is type(expected)


def packed(values: list[int]) -> bytes:
    return b"".join(varint_bytes(value % 2**64) for value in values)


SCALARS = st.one_of(
    st.tuples(st.just(3), INT32).map(lambda v: (field_bytes(3, v[1]), v[1])),
    INT64.map(lambda v: (field_bytes(4, v), v)),
    st.booleans().map(lambda v: (field_bytes(7, int(v)), v)),
    INT64.map(lambda v: (field_bytes(8, v), v)),
    st.text(max_size=200).map(lambda v: (field_bytes(2, v.encode()), v)),
    st.binary(max_size=200).map(lambda v: (field_bytes(1, v), b64encode(v).decode())),
    DOUBLES.map(lambda v: (double(v), v)),
    st.floats(width=32).map(lambda v: (fixed_bytes(6, struct.pack("<f", v)), v)),
)
LISTS = st.one_of(
    st.lists(st.text()).map(lambda v: (field_bytes(12, b"".join(field_bytes(1, t.encode()) for t in v)), v)),
    st.lists(INT64).map(lambda v: (field_bytes(14, field_bytes(1, packed(v))), v)),
    st.lists(INT64).map(lambda v: (field_bytes(14, b"".join(field_bytes(1, n) for n in v)), v)),
    st.lists(INT32).map(lambda v: (field_bytes(24, field_bytes(1, packed(v))), v)),
    st.lists(DOUBLES).map(lambda v: (field_bytes(15, field_bytes(1, struct.pack(f"<{len(v)}d", *v))), v)),
    st.lists(st.booleans()).map(lambda v: (field_bytes(17, field_bytes(1, bytes(v))), v)),
)
VALUES = st.recursive(
    st.one_of(SCALARS, LISTS, st.just((b"", None))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(
            lambda v: (
                field_bytes(42, b"".join(field_bytes(1, raw) for raw, _ in v)),
                [value for _, value in v],
            )
        ),
        st.dictionaries(st.text(max_size=5), inner, max_size=3).map(
            lambda v: (
                field_bytes(
                    20,
                    b"".join(
                        field_bytes(1, field_bytes(1, key.encode()) + field_bytes(2, raw))
                        for key, (raw, _) in v.items()
                    ),
                ),
                {key: value for key, (_, value) in v.items()},
            )
        ),
    ),
    max_leaves=6,
)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(written: tuple[bytes, Any]) -> None:
    raw, value = written

    assert repr(value_of(raw)) == repr(value)


@given(st.lists(st.one_of(VALUES, DOUBLES.map(lambda v: (double(v), v))), max_size=3 * MANY))
def test_many_values_are_what_each_is(written: list[tuple[bytes, Any]]) -> None:
    texts = [b64encode(raw).decode() for raw, _ in written]

    assert repr(values_of_texts(texts)) == repr([value for _, value in written])


@given(st.lists(DOUBLES, min_size=MANY, max_size=3 * MANY), st.integers(0, MANY - 1))
def test_one_of_many_doubles_may_be_something_else(values: list[float], place: int) -> None:
    texts = [b64encode(double(value)).decode() for value in values]
    other = field_bytes(2, b"1234567")  # as long as a double
    texts[place] = b64encode(other).decode()

    assert repr(values_of_texts(texts)) == repr([*values[:place], "1234567", *values[place + 1 :]])


@given(st.binary(max_size=40))
def test_other_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        found = value_of(data)
    except ProtobufError:
        return
    orjson.dumps(as_json(found))


@pytest.mark.parametrize(
    "data",
    [
        field_bytes(99, 1),
        field_bytes(5, 1),
        field_bytes(2, b"\xff"),
        field_bytes(15, field_bytes(1, bytes(7))),
        field_bytes(12, field_bytes(1, 1)),
        field_bytes(48, field_bytes(2, b"Nowhere/Town")),
        field_bytes(48, field_bytes(1, 2**62)),
    ],
    ids=["unknown", "other type", "not UTF-8", "cut", "number", "no zone", "no time"],
)
def test_what_feast_does_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(ProtobufError):
        value_of(data)


def test_values_too_deep_in_each_other_are_refused() -> None:
    data = field_bytes(4, 1)
    for _ in range(150):
        data = field_bytes(42, field_bytes(1, data))

    with pytest.raises(ProtobufError, match="expected at most 100 messages in each other"):
        value_of(data)


def test_text_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        values_of_texts(["#"])
