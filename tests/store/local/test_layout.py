from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import StoreError
from fastserve.store.interface import MAX_KEY_BYTES, MAX_ROW_BYTES, KeyAttribute, TableSpec
from fastserve.store.limits import check_spec, encode_key
from fastserve.store.local import layout

NUMBER = (7).to_bytes(4, "big")
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=600)


@given(keys, keys)
def test_different_keys_lie_in_different_places_that_lmdb_can_take(one: str, other: str) -> None:
    places = [layout.row_key(NUMBER, encode_key(key)) for key in (one, other)]
    assert (places[0] == places[1]) == (one == other)
    assert all(4 < len(place) <= layout.LMDB_MAX_KEY_BYTES for place in places)


@given(keys, st.binary(max_size=100))
def test_a_value_gives_its_row_back(key: str, row: bytes) -> None:
    raw_key = encode_key(key)
    value = layout.encode_value(raw_key, row)
    assert layout.decode_value(raw_key, value) == row
    assert value[:8] == layout.NEVER


def test_a_short_key_is_readable_in_the_environment() -> None:
    assert layout.row_key(NUMBER, b"user-1") == b"\0\0\0\7user-1"
    assert layout.row_key(NUMBER, b"x" * 507) == b"\0\0\0\7" + b"x" * 507
    assert layout.row_key(NUMBER, b"x" * 508) == b"\0\0\0\7\xff" + hashlib.sha256(b"x" * 508).digest()


@pytest.mark.parametrize("other", ["y" * 600, "x" * 601, "x" * 599])
def test_a_row_under_the_same_hash_is_given_to_no_other_key(other: str) -> None:
    value = layout.encode_value(b"x" * 600, b"row")
    assert layout.decode_value(b"x" * 600, value) == b"row"
    assert layout.decode_value(other.encode(), value) is None


@pytest.mark.parametrize(
    "key,message",
    [
        ("", "key: expected 1 to 2048 bytes, got 0"),
        ("é" * 1025, "key: expected 1 to 2048 bytes, got 2050"),
        ("a\udcff", "key: expected text without lone surrogates, got 'a\\udcff'"),
    ],
)
def test_a_key_beyond_the_limits_is_refused(key: str, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        encode_key(key)
    assert str(caught.value) == message


def test_keys_and_rows_at_the_limits_are_taken() -> None:
    raw_key = encode_key("é" * (MAX_KEY_BYTES // 2))
    row = bytes(MAX_ROW_BYTES)
    assert layout.decode_value(raw_key, layout.encode_value(raw_key, row)) == row
    with pytest.raises(StoreError, match="row: expected at most 399360 bytes, got 399361"):
        layout.encode_value(raw_key, row + b"x")


@pytest.mark.parametrize(
    "spec",
    [
        TableSpec("abc"),
        TableSpec("a.b-c_d", KeyAttribute("id", "N")),
        TableSpec("x" * 255, KeyAttribute("user id"), KeyAttribute("tïme", "N")),
    ],
)
def test_a_table_comes_back_from_the_catalogue(spec: TableSpec) -> None:
    check_spec(spec)
    assert layout.decode_table(spec.name, layout.encode_table(300, spec)) == layout.Table(b"\0\0\1\x2c", spec)
    assert len(layout.catalogue_key(spec.name)) <= layout.LMDB_MAX_KEY_BYTES


@pytest.mark.parametrize(
    "spec,message",
    [
        (
            TableSpec("a b"),
            "table name: expected 3 to 255 characters out of A-Z a-z 0-9 _ - . , got 'a b'",
        ),
        (
            TableSpec("abc", KeyAttribute("")),
            "table abc: expected different names of 1 to 255 bytes for its key attributes, got ''",
        ),
        (
            TableSpec("abc", KeyAttribute("a"), KeyAttribute("a")),
            "table abc: expected different names of 1 to 255 bytes for its key attributes, got 'a, a'",
        ),
    ],
)
def test_a_table_that_dynamodb_would_refuse_is_refused(spec: TableSpec, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        check_spec(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[]", b"\xff", b'{"number":1,"keys":[]}', b'{"number":-1,"keys":[["k","S"]]}']
)
def test_a_spoilt_catalogue_entry_is_named(value: bytes) -> None:
    with pytest.raises(StoreError, match="table abc: its catalogue entry is spoilt"):
        layout.decode_table("abc", value)


def test_a_folder_states_its_format() -> None:
    assert layout.decode_format(None) == 1
    assert layout.decode_format(layout.encode_format(5)) == 5
    for other in (b'{"fastserve":2,"next_table":5}', b"{}", b"7", b"x"):
        with pytest.raises(StoreError, match="expected a folder of format 1, got one that says"):
            layout.decode_format(other)
