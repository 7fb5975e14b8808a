"""Where columns stand, and which layouts are one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.sdk.types import (
    Array,
    Bool,
    Bytes,
    DataType,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.tiles.layout import (
    FIXED_MULTIPLE_BYTES,
    FORMAT,
    HEADER_BYTES,
    NULL_FLOAT32_BITS,
    NULL_FLOAT64_BITS,
    Storage,
    make_layout,
    null_value,
    storage_of,
)

TYPES: list[DataType] = [Int64, Float64, Float32, Bool, String, Timestamp, Array(Int64), Map(String, Bool)]
columns = st.lists(st.sampled_from(TYPES), max_size=12).map(
    lambda types: [(f"c{n}", t) for n, t in enumerate(types)]
)


@given(columns)
def test_columns_stand_aligned_side_by_side_behind_the_header(named: list[tuple[str, DataType]]) -> None:
    layout = make_layout(named)
    assert [(column.name, column.dtype) for column in layout.columns] == named
    spans = sorted((column.offset, column.offset + column.storage.width_bytes) for column in layout.columns)
    assert all(low % (high - low) == 0 for low, high in spans)
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    assert spans[0][0] == HEADER_BYTES if spans else True
    end = spans[-1][1] if spans else HEADER_BYTES
    assert end <= layout.fixed_bytes < end + FIXED_MULTIPLE_BYTES
    assert layout.fixed_bytes % FIXED_MULTIPLE_BYTES == 0
    assert layout.fixed_text_length * 3 == layout.fixed_bytes * 4


@given(columns, columns)
def test_a_schema_id_says_which_columns_in_which_order(
    left: list[tuple[str, DataType]], right: list[tuple[str, DataType]]
) -> None:
    assert (make_layout(left).schema_id == make_layout(right).schema_id) == (left == right)


def test_a_schema_id_is_the_same_on_every_host_and_for_ever() -> None:
    layout = make_layout([("a", Int64), ("b", Struct([Field("c", String)]))])
    assert f"{layout.schema_id:08x}" == "3299319e"


def test_the_header_word_holds_format_and_schema() -> None:
    layout = make_layout([("a", Int64)])
    raw = layout.header_word.to_bytes(8, "little", signed=True)
    assert raw == bytes([FORMAT, 0, 0, 0]) + layout.schema_id.to_bytes(4, "little")


def test_a_description_names_columns_and_types() -> None:
    assert make_layout([("b", Bool), ("a", Int64)]).describe() == [
        ("b", {"type": "boolean"}),
        ("a", {"type": "int64"}),
    ]


@pytest.mark.parametrize("storage", list(Storage))
def test_a_null_is_as_wide_as_its_column(storage: Storage) -> None:
    assert null_value(storage).itemsize == storage.width_bytes


def test_a_null_float_is_a_nan_with_a_payload() -> None:
    for storage, kind, bits in (
        (Storage.F8, "<i8", NULL_FLOAT64_BITS),
        (Storage.F4, "<i4", NULL_FLOAT32_BITS),
    ):
        value = null_value(storage)
        assert value[0] != value[0]
        assert value.view(kind)[0] == bits


def test_every_type_has_a_storage() -> None:
    kinds = [storage_of(dtype) for dtype in TYPES]
    assert kinds == [
        Storage.I8,
        Storage.F8,
        Storage.F4,
        Storage.BOOL,
        Storage.JSON,
        Storage.TIME,
        Storage.JSON,
        Storage.JSON,
    ]


def test_columns_of_bytes_are_variable_width_beside_texts() -> None:
    layout = make_layout([("a", Bytes), ("n", Int64), ("t", String), ("b", Bytes)])
    assert [column.name for column in layout.bytes_columns] == ["a", "b"]
    assert [column.name for column in layout.json_columns] == ["t"]
    assert [column.name for column in layout.variable_columns] == ["a", "t", "b"]
    assert layout.describe()[0] == ("a", {"type": "bytes"})
