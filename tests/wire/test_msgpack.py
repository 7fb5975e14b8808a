from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import InvariantError
from fastserve.wire.msgpack import array_head, map_head, pack, unpack

LENGTHS = [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.floats(width=32).map(np.float32),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Whether two values are of one type and equal; NaN is NaN, and a float of 4 bytes one of 8."""
    if isinstance(left, float | np.floating):
        return isinstance(right, float | np.floating) and np.array_equal(left, right, equal_nan=True)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    return type(left) is type(right) and bool(left == right)


@given(VALUES)
def test_what_is_packed_is_read_by_others_and_by_ourselves(value: Any) -> None:
    packed = pack(value)
    assert same(value, msgpack.unpackb(packed))
    assert same(value, unpack(packed))


@pytest.mark.parametrize("length", LENGTHS)
def test_each_length_takes_the_shortest_form(length: int) -> None:
    for value in ("x" * length, [None] * length, {f"{n:05}": 1 for n in range(length)}):
        packed = pack(value)
        assert packed == msgpack.packb(value)
        assert unpack(packed) == value
    assert array_head(length) == pack([None] * length)[: len(array_head(length))]
    assert map_head(length) == msgpack.Packer().pack_map_header(length)


@pytest.mark.parametrize("power", [5, 7, 8, 15, 16, 31, 32, 63, 64])
def test_each_integer_takes_the_shortest_form(power: int) -> None:
    for value in (2**power - 1, 2**power, -(2**power), -(2**power) - 1):
        if -(2**63) <= value < 2**64:
            assert pack(value) == msgpack.packb(value)
            assert unpack(pack(value)) == value


def test_a_float_keeps_its_width() -> None:
    assert len(pack(0.1)) == 9
    assert len(pack(np.float32(0.1))) == 5
    assert unpack(pack(np.float32(0.1))) == np.float32(0.1)
    assert math.isnan(unpack(pack(math.nan)))


@pytest.mark.parametrize(
    "value, message",
    [
        (b"x", "expected a value that JSON has, to be packed, got bytes"),
        ({"a": object()}, "expected a value that JSON has, to be packed, got object"),
        (2**64, "expected an integer of at most 64 bits, to be packed"),
        (-(2**63) - 1, "expected an integer of at most 64 bits, to be packed"),
    ],
)
def test_what_cannot_be_packed_is_our_fault(value: Any, message: str) -> None:
    with pytest.raises(InvariantError) as raised:
        pack(value)
    assert str(raised.value) == message


def test_what_is_cut_or_goes_on_is_refused() -> None:
    packed = pack({"a": [1, 2**40, 0.5, np.float32(1), "text" * 20], "b": {}})
    for end in range(len(packed)):
        with pytest.raises(InvariantError, match=r"^expected MessagePack, got what ends within a value$"):
            unpack(packed[:end])
    with pytest.raises(InvariantError, match=r"^expected one value of MessagePack, got 2 bytes behind it$"):
        unpack(packed + b"\xc0\xc0")


def test_types_that_json_lacks_are_refused() -> None:
    with pytest.raises(InvariantError, match=r"got MessagePack's 0xc4$"):
        unpack(msgpack.packb(b"x"))
