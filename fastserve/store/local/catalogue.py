"""The tables of a local store: found by name, remembered, created.

All here is work for a transaction that somebody else began; it knows none of LMDB's errors.

Invariants
1. Only tables that exist are remembered. One that lacks is looked for anew each time: it may be created by
   another process at any moment, and none is ever removed.
2. A folder is written to only if it is empty or states the format that this module writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastserve.errors import StoreError, shown
from fastserve.plan.reads import PACKED_KEY, ReadGroup
from fastserve.store.interface import TableSpec
from fastserve.store.limits import check_key, check_spec, key_of
from fastserve.store.local import layout
from fastserve.store.local.environment import Transaction
from fastserve.store.local.layout import Table


class Catalogue:
    """The tables that were found so far."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}

    def find(self, transaction: Transaction, name: str) -> Table | None:
        """Return the table called ``name``, None where there is none."""
        table = self._tables.get(name)
        if table is None:
            value = transaction.get(layout.catalogue_key(name))
            if value is None:
                return None
            table = self._tables[name] = layout.decode_table(name, value)
        return table

    def require(self, transaction: Transaction, name: str) -> Table:
        """Return the table called ``name``.

        Raises:
            StoreError: there is none.
        """
        table = self.find(transaction, name)
        if table is None:
            raise StoreError(f"table {shown(name)}: there is no such table")
        return table

    def require_packed(self, transaction: Transaction, name: str) -> Table:
        """Return the table called ``name``, which has the key of packed rows.

        Raises:
            StoreError: there is none, or it has another key.
        """
        table = self.require(transaction, name)
        check_key(table.spec, PACKED_KEY)
        return table

    def group_numbers(self, transaction: Transaction, group: ReadGroup) -> tuple[bytes, ...]:
        """Return the numbers of a read group's tables, all of which have the group's key.

        Raises:
            StoreError: one of them doesn't exist or has another key.
        """
        tables = [self.require(transaction, name) for name in group.tables]
        for table in tables:
            check_key(table.spec, group.key_attributes)
        return tuple(table.number for table in tables)


def check_format(transaction: Transaction, _: object = None) -> None:
    """Check that the folder is new or holds what this module's `create` began.

    Raises:
        StoreError: something else wrote it.
    """
    value = transaction.get(layout.FORMAT_KEY)
    if value is None and transaction.stat()["entries"]:
        raise StoreError("expected a folder that fastserve has made, got another program's LMDB environment")
    layout.decode_format(value)


def create(transaction: Transaction, spec: TableSpec) -> None:
    """Catalogue a table under the next number; leave alone one that is there and equal.

    Raises:
        StoreError: it is there and differs, or can't be used.
    """
    check_spec(spec)
    known = Catalogue().find(transaction, spec.name)
    if known is not None:
        check_key(known.spec, key_of(spec))
        return
    number = layout.decode_format(transaction.get(layout.FORMAT_KEY))
    if number > layout.MAX_TABLE_NUMBER:
        raise StoreError(f"table {spec.name}: expected at most {layout.MAX_TABLE_NUMBER} tables")
    transaction.put(layout.FORMAT_KEY, layout.encode_format(number + 1))
    transaction.put(layout.catalogue_key(spec.name), layout.encode_table(number, spec))


@contextmanager
def naming(table: Table) -> Iterator[None]:
    """Put the table's name before the message of a StoreError."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"table {table.spec.name}: {error}") from error
