from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.store.interface import KeyAttribute, TableSpec
from fastserve.store.local import catalogue, layout
from fastserve.store.local.catalogue import Catalogue
from fastserve.store.local.environment import Transaction


@pytest.fixture
def transaction(tmp_path: Path) -> Iterator[Transaction]:
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        yield transaction


def test_tables_get_numbers_of_their_own(transaction: Transaction) -> None:
    for name in ("one", "two", "one", "three"):
        catalogue.create(transaction, TableSpec(name))
    tables = [Catalogue().require(transaction, name) for name in ("one", "two", "three")]
    assert [table.number for table in tables] == [b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"]


def test_a_table_that_differs_says_both_keys(transaction: Transaction) -> None:
    catalogue.create(transaction, TableSpec("views"))
    with pytest.raises(StoreError) as caught:
        catalogue.create(transaction, TableSpec("views", KeyAttribute("id", "N"), KeyAttribute("t")))
    assert str(caught.value) == "table views: expected key attributes 'id' (N), 't' (S), got 'k' (S)"


def test_a_missing_table_is_found_once_it_is_there(transaction: Transaction) -> None:
    tables = Catalogue()
    assert tables.find(transaction, "views") is None
    with pytest.raises(StoreError, match="table 'views': there is no such table"):
        tables.require(transaction, "views")
    catalogue.create(transaction, TableSpec("views"))
    assert tables.require(transaction, "views").spec == TableSpec("views")


@pytest.mark.parametrize("name", ["", "x" * 1000, "a b", "\ud800", "\xff"])
def test_a_name_that_no_table_can_have_is_of_no_table(transaction: Transaction, name: str) -> None:
    catalogue.create(transaction, TableSpec("views"))
    assert Catalogue().find(transaction, name) is None


def test_a_group_has_numbers_if_all_its_tables_are_there_with_its_key(transaction: Transaction) -> None:
    for name in ("one", "two"):
        catalogue.create(transaction, TableSpec(name))
    catalogue.create(transaction, TableSpec("items", KeyAttribute("id", "N")))
    tables = Catalogue()
    assert tables.group_numbers(transaction, ReadGroup(0, ("two", "one"))) == (b"\0\0\0\2", b"\0\0\0\1")
    with pytest.raises(StoreError, match="table 'three': there is no such table"):
        tables.group_numbers(transaction, ReadGroup(0, ("one", "three")))
    with pytest.raises(StoreError, match=r"table items: expected key attributes 'k' \(S\), got 'id' \(N\)"):
        tables.group_numbers(transaction, ReadGroup(0, ("one", "items")))


def test_another_programs_environment_is_refused(transaction: Transaction) -> None:
    catalogue.check_format(transaction)
    transaction.put(b"theirs", b"1")
    with pytest.raises(StoreError, match="got another program's LMDB environment"):
        catalogue.check_format(transaction)


def test_a_folder_of_a_later_format_is_neither_read_nor_written(transaction: Transaction) -> None:
    transaction.put(layout.FORMAT_KEY, b'{"fastserve":2,"next_table":1}')
    with pytest.raises(StoreError, match="expected a folder of format 1, got one that says"):
        catalogue.check_format(transaction)
    with pytest.raises(StoreError, match="expected a folder of format 1, got one that says"):
        catalogue.create(transaction, TableSpec("views"))


def test_table_numbers_come_to_an_end(transaction: Transaction) -> None:
    transaction.put(layout.FORMAT_KEY, layout.encode_format(layout.MAX_TABLE_NUMBER))
    catalogue.create(transaction, TableSpec("last"))
    assert Catalogue().require(transaction, "last").number == b"\x7f\xff\xff\xff"
    with pytest.raises(StoreError, match="table more: expected at most 2147483647 tables"):
        catalogue.create(transaction, TableSpec("more"))
