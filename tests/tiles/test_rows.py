"""Packed rows: what is put in comes out, to the bit, and nothing else is taken for a row."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.sdk.types import Array, Bool, Bytes, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.layout import (
    FLAG_NONFINITE,
    FLAG_NULL_BITMAP,
    NULL_FLOAT64_BITS,
    NULL_INT64,
    RowLayout,
    make_layout,
)
from fastserve.tiles.rows import (
    RowBuilder,
    RowError,
    bytes_values,
    check_header,
    decode_row,
    effective_ns_of,
    encode_row,
    json_texts,
)

VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    Int64: st.integers(-(2**63), 2**63 - 1),
    Timestamp: st.integers(-(2**63), 2**63 - 1),
    Float64: st.floats() | st.just(struct.unpack("<d", NULL_FLOAT64_BITS.to_bytes(8, "little"))[0]),
    Float32: st.floats(width=32),
    Bool: st.booleans(),
    String: st.text(max_size=20).map(orjson.dumps),
    Array(Int64): st.lists(st.integers(0, 9).map(str), max_size=3).map(orjson.dumps),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[RowLayout, list[dict[str, Any]]]:
    """A layout and rows of it, None for null."""
    types = draw(st.lists(st.sampled_from(list(VALUES)), max_size=10))
    layout = make_layout([(f"c{n}", dtype) for n, dtype in enumerate(types)])
    row = st.fixed_dictionaries({f"c{n}": st.none() | VALUES[dtype] for n, dtype in enumerate(types)})
    return layout, draw(st.lists(row, min_size=1, max_size=4))


def same(got: dict[str, Any], put: dict[str, Any]) -> bool:
    """Compare by text: NaN is NaN, and zero has its sign."""
    return repr(got) == repr({name: put[name] for name in got})


@given(tables())
def test_rows_built_together_give_back_what_was_set(table: tuple[RowLayout, list[dict[str, Any]]]) -> None:
    layout, rows = table
    builder = RowBuilder(layout, len(rows))
    builder.set_effective_ns(np.arange(len(rows)) - 1)
    for column in layout.columns:
        values = [row[column.name] for row in rows]
        if column in layout.json_columns:
            builder.set_json(column.name, [b"null" if value is None else value for value in values])
        else:
            nulls = np.array([value is None for value in values])
            builder.set_numbers(column.name, [0 if value is None else value for value in values], nulls)
    for number, (raw, row) in enumerate(zip(builder.build(), rows, strict=True)):
        assert len(raw) % 3 == 0
        assert effective_ns_of(raw) == number - 1
        assert same(decode_row(layout, raw), row)


@given(tables())
def test_a_single_row_is_the_same_as_one_of_many(table: tuple[RowLayout, list[dict[str, Any]]]) -> None:
    layout, rows = table
    for row in rows:
        raw = encode_row(layout, row, 7)
        assert same(decode_row(layout, raw), row)
        texts = json_texts(layout, raw)
        assert texts == {c.name: row[c.name] or b"null" for c in layout.json_columns}


@given(tables(), st.data())
def test_a_row_that_was_cut_or_padded_is_an_error(
    table: tuple[RowLayout, list[dict[str, Any]]], data: st.DataObject
) -> None:
    layout, rows = table
    raw = encode_row(layout, rows[0], 0)
    for spoilt in (raw[: data.draw(st.integers(0, len(raw) - 1))], raw + b"\0\0\0", raw + b"x"):
        with pytest.raises(RowError):
            decode_row(layout, spoilt)


def test_columns_that_were_never_set_are_null() -> None:
    layout = make_layout([(f"c{n}", dtype) for n, dtype in enumerate(VALUES)])
    (raw,) = RowBuilder(layout, 1).build()
    assert set(decode_row(layout, raw).values()) == {None}
    assert check_header(layout, raw) == 0


def test_a_value_that_looks_like_null_is_flagged_and_exact() -> None:
    layout = make_layout([("a", Int64), ("b", Int64), ("c", Float64)])
    raw = encode_row(layout, {"a": NULL_INT64, "b": None, "c": 1.0}, 0)
    assert check_header(layout, raw) & FLAG_NULL_BITMAP
    assert decode_row(layout, raw) == {"a": NULL_INT64, "b": None, "c": 1.0}


def test_nan_and_infinity_are_flagged_and_null_is_not() -> None:
    layout = make_layout([("a", Float64), ("b", Float32)])
    values = [(float("nan"), 1.0), (float("inf"), None), (1.0, float("nan")), (None, None), (0.5, 0.5)]
    flags = [check_header(layout, encode_row(layout, {"a": a, "b": b}, 0)) for a, b in values]
    assert flags == [FLAG_NONFINITE] * 3 + [0, 0]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda row: b"", "expected a packed row of at least 16 bytes, got 0 bytes"),
        (lambda row: b"\2" + row[1:], "expected a packed row of format 1, got format 2 with flags 0"),
        (
            lambda row: row[:1] + b"\x80" + row[2:],
            "expected a packed row of format 1, got format 1 with flags 128",
        ),
        (lambda row: row[:4] + b"\0\0\0\0" + row[8:], "expected a row of schema"),
        (lambda row: row[:18], "expected at least 24 bytes for schema"),
    ],
)
def test_what_is_no_row_of_the_layout_says_so(spoil: Any, message: str) -> None:
    layout = make_layout([("a", Int64)])
    with pytest.raises(RowError, match=message):
        decode_row(layout, spoil(encode_row(layout, {"a": 1}, 0)))


def test_a_row_of_another_schema_tells_which() -> None:
    old, new = make_layout([("a", Int64)]), make_layout([("a", Float64)])
    with pytest.raises(RowError) as caught:
        check_header(new, encode_row(old, {"a": 1}, 0))
    assert caught.value.schema_id == old.schema_id


def test_words_of_compacted_rows_are_kept_to_the_bit() -> None:
    layout = make_layout([("a", Float64), ("b", Float64), ("c", Int64)])
    builder = RowBuilder(layout, 2)
    floats = np.array([[1.0, -0.0], [np.nan, np.inf]])
    floats.view("<i8")[1, 0] = NULL_FLOAT64_BITS
    builder.set_words(2, floats)
    builder.set_words(4, np.array([[NULL_INT64], [7]], np.int64))
    first, second = (np.frombuffer(row, "<i8") for row in builder.build())
    assert first[2:5].tolist() == [floats.view("<i8")[0, 0], NULL_INT64, NULL_INT64]
    assert second[2:5].tolist() == [NULL_FLOAT64_BITS, floats.view("<i8")[1, 1], 7]
    assert [row.view("u1")[1] for row in (first, second)] == [0, FLAG_NONFINITE]


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=4)), min_size=1, max_size=3))
def test_columns_of_bytes_come_back_as_they_were_and_may_be_empty(values: list[tuple[bytes, bytes]]) -> None:
    layout = make_layout([("a", Bytes), ("n", Int64), ("t", String), ("b", Bytes)])
    builder = RowBuilder(layout, len(values))
    builder.set_bytes("a", [a for a, _ in values])
    builder.set_bytes("b", [b for _, b in values])
    for row, (a, b) in zip(builder.build(), values, strict=True):
        assert decode_row(layout, row) == {"a": a, "n": None, "t": None, "b": b}
        assert bytes_values(layout, row) == {"a": a, "b": b}
        assert json_texts(layout, row) == {"t": b"null"}
        assert encode_row(layout, {"a": a, "b": b}, 0) == row


def test_a_row_of_bytes_that_is_cut_is_no_row() -> None:
    layout = make_layout([("a", Bytes)])
    row = encode_row(layout, {"a": b"123456"}, 0)
    with pytest.raises(RowError, match="expected its text to end"):
        bytes_values(layout, row[:-3])
