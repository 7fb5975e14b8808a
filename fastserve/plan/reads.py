"""Read groups: tables that are always read together with one key.

The unit of coalescing is not a (table, key) pair but a (read group, key) pair: the tables of a workspace are
cut into disjoint groups such that every service reads either all tables of a group under one key or none. One
dictionary look-up then stands for all tables of the group, and the body of a BatchGetItem is one ``join``
over text that was made when the plan was compiled.

Invariants
1. A table belongs to exactly one group, so that no (table, key) pair can be asked twice by two groups.
2. A group has at most `MAX_GROUP_TABLES` tables, so that a call of 100 keys always holds two keys of the
   largest group.
3. Tables of one group share their key attributes, so that one key text serves all of them.
4. Stream tables share groups only with others whose blocks are as long: the same blocks are read of all.
   Tables that are pushed to share groups only with others such, for theirs are read anew after each push.
5. Tables of one group are cached alike, and lie in one store.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from fastserve.plan.stores import MAIN_STORE
from fastserve.wire.feast_key import FeastKeyForm

MAX_GROUP_TABLES = 50
"""Half of BatchGetItem's 100 keys: a group of 60 tables would leave 40 places of every call empty."""

KeyAttributes = tuple[tuple[str, str], ...]
"""(attribute name, "S" or "N") of a table's partition key and, where there is one, its sort key."""

PACKED_KEY: KeyAttributes = (("k", "S"),)
"""Every table that fastserve creates is keyed by one string attribute."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long rows may be served out of a worker's memory: always, or where the store has failed."""

    ttl_ns: int
    stale_ns: int = 0

    @property
    def kept_ns(self) -> int:
        """How old a row may be where the store has failed."""
        return max(self.ttl_ns, self.stale_ns)


@dataclass(frozen=True, slots=True)
class ReadGroup:
    """Tables which are always read together under one key text.

    ``index`` numbers the groups of a workspace from 0. ``own_items`` is true where the tables hold packed
    rows written by fastserve, false where they hold ordinary items (the attributes format). ``block_ns`` is
    how long the blocks in stream tables are, 0 for all other tables. ``pushed`` tells that a push may write
    to the tables at any moment, and that whoever asks after its answer is to find it.
    ``cache`` is None where every request asks the store. ``feast`` is how keys are made where Feast wrote the
    tables. ``store`` is the name of the store in which they lie.
    """

    index: int
    tables: tuple[str, ...]
    key_attributes: KeyAttributes = PACKED_KEY
    own_items: bool = True
    block_ns: int = 0
    pushed: bool = False
    cache: CachePolicy | None = None
    feast: FeastKeyForm | None = None
    store: str = MAIN_STORE

    @property
    def size(self) -> int:
        """How many keys one read of this group costs."""
        return len(self.tables)


@dataclass(frozen=True, slots=True)
class TableUse:
    """That some service reads ``table`` under the key built by ``key_recipe``."""

    table: str
    key_recipe: Hashable
    key_attributes: KeyAttributes
    own_items: bool
    block_ns: int = 0
    pushed: bool = False
    cache: CachePolicy | None = None
    feast: FeastKeyForm | None = None
    store: str = MAIN_STORE


def partition_tables(uses_by_service: Iterable[Sequence[TableUse]]) -> list[ReadGroup]:
    """Cut the tables of all services into the fewest read groups that keep invariants 1 to 3.

    Two tables share a group when every service that reads one of them reads the other under the same keys.
    """
    signatures: dict[str, list[tuple[int, Hashable]]] = {}
    facts: dict[str, TableUse] = {}
    for number, uses in enumerate(uses_by_service):
        for use in uses:
            signatures.setdefault(use.table, []).append((number, use.key_recipe))
            facts[use.table] = use
    cells: dict[Hashable, list[str]] = {}
    for table, signature in signatures.items():
        use = facts[table]
        cell = (
            frozenset(signature),
            use.key_attributes,
            use.own_items,
            use.block_ns,
            use.pushed,
            use.cache,
            use.feast,
            use.store,
        )
        cells.setdefault(cell, []).append(table)
    groups: list[ReadGroup] = []
    for tables in cells.values():
        use = facts[tables[0]]
        for part in _even_parts(sorted(tables)):
            groups.append(
                ReadGroup(
                    len(groups),
                    tuple(part),
                    use.key_attributes,
                    use.own_items,
                    use.block_ns,
                    use.pushed,
                    use.cache,
                    use.feast,
                    store=use.store,
                )
            )
    return groups


def _even_parts(tables: list[str]) -> Iterable[list[str]]:
    count = -(-len(tables) // MAX_GROUP_TABLES)
    for part in range(count):
        yield tables[part * len(tables) // count : (part + 1) * len(tables) // count]
