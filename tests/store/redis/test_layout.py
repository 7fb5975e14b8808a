from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastserve.errors import StoreError
from fastserve.store.interface import KeyAttribute, TableSpec, VersionedRow
from fastserve.store.redis import layout

keys = st.binary(min_size=1, max_size=20) | st.text("{}\0#ab", min_size=1, max_size=5).map(str.encode)
tables = st.sampled_from([b"abc", b"abcd", b"prod.shop.view", b"prod.shop.view.stream"])


def slot_by_the_rules(key: bytes) -> int:
    """Return the slot of a whole key as the cluster's specification has it, bit by bit."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    tag = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    crc = 0
    for byte in tag:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc % 16_384


@given(tables, keys, tables, keys)
def test_different_rows_lie_under_different_keys(
    table: bytes, key: bytes, other_table: bytes, other: bytes
) -> None:
    places = layout.row_key(table, key), layout.row_key(other_table, other)
    assert (places[0] == places[1]) == ((table, key) == (other_table, other))
    assert layout.note_key(places[0]) != places[1]
    assert layout.raw_key_of(table, places[0]) == key


@given(keys)
@example(b"}")
@example(b"}{")
@example(b"\0}")
@example(b"a}b")
@example(b"{a}")
def test_all_keys_of_an_entity_key_have_the_slot_of_the_specification(key: bytes) -> None:
    slot = layout.slot_of(layout.stored(key))
    for table in (b"abc", b"prod.shop.view"):
        row_key = layout.row_key(table, key)
        assert slot_by_the_rules(row_key) == slot
        assert slot_by_the_rules(layout.note_key(row_key)) == slot


def test_keys_are_readable() -> None:
    assert layout.row_key(b"prod.shop.user", b"u1") == b"prod.shop.user{u1}"
    assert layout.slot_of(b"123456789") == 12_739  # the example of the specification


@pytest.mark.parametrize("row", [VersionedRow(0, b"abc"), VersionedRow(3, b"", b"ids", 2**40)])
def test_a_note_gives_back_what_was_noted(row: VersionedRow) -> None:
    assert layout.decode_row(row.row, layout.encode_note(row)) == row
    assert layout.decode_row(None, layout.encode_note(row)) is None
    assert layout.decode_row(row.row, None) == VersionedRow(0, row.row)
    assert layout.decode_row(row.row, b"T12345678") == VersionedRow(0, row.row)


def test_a_table_is_described_by_its_key() -> None:
    spec = TableSpec("abc", KeyAttribute("user"), KeyAttribute("day", "N"))
    assert layout.decode_table("abc", layout.encode_table(spec)) == spec
    for spoilt in (b"", b"[]", b'{"keys":[]}', b'{"keys":[["a"]]}', b"\xff"):
        with pytest.raises(StoreError, match="table abc: its description is spoilt"):
            layout.decode_table("abc", spoilt)
