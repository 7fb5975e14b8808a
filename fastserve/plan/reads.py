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
6. The table of a bundle is a group by itself, with an attribute for each view that any service reads: one key
   is read for all of them, whichever of them a service wants.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastserve.plan.stores import MAIN_STORE
from fastserve.wire.feast_key import FeastKeyForm

MAX_GROUP_TABLES = 50
"""Half of BatchGetItem's 100 keys: a group of 60 tables would leave 40 places of every call empty."""

BYTES_PER_KEY = 4096
"""Of a bundle's item count as one of a call's 100 keys: so a call has at most some 400 KB, and its answer
doesn't keep the loop for long, where 100 whole items could be 40 MB."""

PROJECTED_SHARE = 0.75
"""A bundle is read with a projection where services read at most this share of its bytes. To parse 50 rows
of 95 KB together took 427 us a key, 25 of them 203, 2 of them 2.5: it goes with the bytes. A projection costs
its names, once a call."""

PROJECTED_ATTRIBUTES = 500
"""A projection has at most 4,096 bytes."""

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
    tables. ``store`` is the name of the store in which they lie. ``attributes`` are those of a bundle's items
    that hold rows, one for each view; none where an item is one row. ``projected`` tells that only these are
    to be read of an item. ``weight`` is how much of a call one read takes, in keys.
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
    attributes: tuple[str, ...] = ()
    projected: bool = False
    weight: int = 0

    def __post_init__(self) -> None:
        if not self.weight:
            object.__setattr__(self, "weight", len(self.tables))

    @property
    def size(self) -> int:
        """How many keys one read of this group costs."""
        return len(self.tables)

    @property
    def row_places(self) -> tuple[tuple[str, str | None], ...]:
        """The table and, in a bundle, the attribute of each row of a read."""
        if self.attributes:
            return tuple((self.tables[0], attribute) for attribute in self.attributes)
        return tuple((table, None) for table in self.tables)


@dataclass(frozen=True, slots=True)
class TableUse:
    """That some service reads ``table`` under the key built by ``key_recipe``.

    Of a bundle's table it reads ``attribute``, which takes about ``row_bytes``.
    """

    table: str
    key_recipe: Hashable
    key_attributes: KeyAttributes
    own_items: bool
    block_ns: int = 0
    pushed: bool = False
    cache: CachePolicy | None = None
    feast: FeastKeyForm | None = None
    store: str = MAIN_STORE
    attribute: str | None = None
    row_bytes: int = 0


def partition_tables(
    uses_by_service: Iterable[Sequence[TableUse]], item_bytes: Mapping[str, int] | None = None
) -> list[ReadGroup]:
    """Cut the tables of all services into the fewest read groups that keep invariants 1 to 3.

    Two tables share a group when every service that reads one of them reads the other under the same keys.
    ``item_bytes`` are the sizes of whole items of bundles by their tables.
    """
    signatures: dict[str, list[tuple[int, Hashable]]] = {}
    facts: dict[str, TableUse] = {}
    bundled: dict[str, dict[str, TableUse]] = {}
    for number, uses in enumerate(uses_by_service):
        for use in uses:
            if use.attribute is not None:
                bundled.setdefault(use.table, {})[use.attribute] = use
                continue
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
    for table, by_attribute in sorted(bundled.items()):
        groups.append(_bundle_group(len(groups), table, by_attribute, (item_bytes or {}).get(table, 0)))
    return groups


def _bundle_group(index: int, table: str, by_attribute: Mapping[str, TableUse], item_bytes: int) -> ReadGroup:
    uses = list(by_attribute.values())
    read_bytes = sum(use.row_bytes for use in uses)
    projected = read_bytes <= item_bytes * PROJECTED_SHARE and len(uses) <= PROJECTED_ATTRIBUTES
    moved = read_bytes if projected else max(read_bytes, item_bytes)
    return ReadGroup(
        index,
        (table,),
        uses[0].key_attributes,
        pushed=any(use.pushed for use in uses),
        cache=uses[0].cache,
        store=uses[0].store,
        attributes=tuple(sorted(by_attribute)),
        projected=projected,
        weight=min(MAX_GROUP_TABLES, max(1, -(-moved // BYTES_PER_KEY))),
    )


def _even_parts(tables: list[str]) -> Iterable[list[str]]:
    count = -(-len(tables) // MAX_GROUP_TABLES)
    for part in range(count):
        yield tables[part * len(tables) // count : (part + 1) * len(tables) // count]
