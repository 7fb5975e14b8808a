"""Protobuf's wire format, read: numbers at their limits, what is cut off, what is passed over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire.protobuf import (
    ProtobufError,
    fields,
    int32,
    int64,
    number,
    payload,
    text,
    unpacked,
    varint,
)
from tests.wire.protobuf_twin import field_bytes, varint_bytes

UINT64 = st.integers(0, 2**64 - 1)


@given(UINT64, st.binary(max_size=3))
def test_a_varint_is_read_as_it_was_written(value: int, behind: bytes) -> None:
    written = varint_bytes(value)

    assert varint(b"\x80" + written + behind, 1) == (value, 1 + len(written))


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_integers_are_two_s_complement(value: int) -> None:
    assert int64(value % 2**64) == value
    assert int32(value % 2**64) == (value + 2**31) % 2**32 - 2**31


@given(st.lists(st.tuples(st.integers(1, 5000), st.one_of(UINT64, st.binary(max_size=20)))))
def test_fields_come_in_the_order_in_which_they_stand(message: list[tuple[int, int | bytes]]) -> None:
    data = b"".join(field_bytes(which, value) for which, value in message)

    assert [(which, value) for which, _, value in fields(data)] == message


@given(st.lists(st.tuples(st.integers(1, 40), st.binary(max_size=9)), min_size=1, max_size=4), st.data())
def test_a_message_that_is_cut_off_is_none(message: list[tuple[int, bytes]], data: st.DataObject) -> None:
    ends = [0]
    whole = b""
    for which, value in message:
        whole += field_bytes(which, value)
        ends.append(len(whole))
    cut = data.draw(st.integers(1, len(whole) - 1))
    if cut in ends:
        return
    with pytest.raises(ProtobufError):
        list(fields(whole[:cut]))


@pytest.mark.parametrize(
    "data",
    [b"\x00\x01", b"\x0b", b"\x0c", b"\x0e", b"\x0f", b"\xff" * 11, b"\x0d\x00\x00", b"\x09" + bytes(7)],
    ids=["field 0", "group", "end of group", "type 6", "type 7", "endless varint", "4 bytes", "8 bytes"],
)
def test_what_no_message_of_proto3_has_is_refused(data: bytes) -> None:
    with pytest.raises(ProtobufError):
        list(fields(data))


def test_a_field_of_another_kind_says_what_was_expected() -> None:
    with pytest.raises(ProtobufError, match=r"^expected a string, bytes or a message, got a number$"):
        payload(1)
    with pytest.raises(ProtobufError, match=r"^expected a number, got bytes$"):
        number(b"")
    with pytest.raises(ProtobufError, match=r"^expected a string in UTF-8, got other bytes$"):
        text(b"\xff")
    with pytest.raises(ProtobufError, match=r"^expected a number of a fixed width, got 7 bytes$"):
        unpacked("<d", bytes(7))
