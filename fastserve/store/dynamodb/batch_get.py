"""BatchGetItem's JSON: the body for a batch of reads, and the rows out of the answer.

The tables of a read group stand in the body with the same list of keys, so the body of a group is one
``join``: the keys' text between pieces that were made once per group (`perf/micro/batch_get.py`: 1.8 us for
50 tables with 2 keys each, 8.9 us by way of objects).

Invariants
1. Items are matched to reads by their key alone, never by position: the service answers in any order.
2. A key that is neither among the items nor unprocessed is absent. An item whose key nobody asked for makes
   the whole answer invalid.
3. Tables that are pushed to are read consistently, all others as the call is told. Of tables of blocks only
   key and row are asked for: what the writer keeps beside them is for it alone.
4. An item of a bundle gives each of its group's rows out of the row's own attribute; an attribute that lacks
   is an absent row, whatever else is in the item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fastserve.errors import StoreError
from fastserve.plan.keys import key_json
from fastserve.plan.reads import ReadGroup
from fastserve.plan.streams import STREAM_SUFFIX
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.plain_rows import RowPlaces, fill_rows

NOT_A_ROW = ""
"""What stands for an item without a row in it: unreadable, not absent."""


PROJECTED = b',"ProjectionExpression":"k,v"'
CONSISTENT = b',"ConsistentRead":true'


def is_projected(group: ReadGroup, table: str) -> bool:
    """Whether items of the table hold more than a reader needs."""
    return group.own_items and table.endswith(STREAM_SUFFIX)


class BatchGetCodec:
    """Builds and reads BatchGetItem calls over the read groups of one workspace."""

    def __init__(self, *, consistent: bool = False) -> None:
        self._consistent = consistent
        self._pieces: dict[int, list[bytes]] = {}
        self._row_places: dict[int, tuple[dict[str, int], str | None]] = {}

    def _pieces_of(self, group: ReadGroup) -> list[bytes]:
        names = [orjson.dumps(table) + b':{"Keys":[' for table in group.tables]
        ends = [self._end_of(group, table) for table in group.tables]
        between = [end + b"," + name for end, name in zip(ends, names[1:], strict=False)]
        return [names[0], *between, ends[-1]]

    def _end_of(self, group: ReadGroup, table: str) -> bytes:
        end = b"]"
        if group.projected:
            end += _projection(group.attributes)
        if is_projected(group, table):
            end += PROJECTED
        if self._consistent or group.pushed:
            end += CONSISTENT
        return end + b"}"

    def body(self, reads: Sequence[KeyRead]) -> bytes:
        """Return the request body that asks for all keys of ``reads``."""
        keys: dict[int, list[bytes]] = {}
        pieces = self._pieces
        for read in reads:
            group = read.group
            if group.own_items:
                key = b'{"k":{"S":' + orjson.dumps(read.key) + b"}}"
            else:
                key = key_json(group, read.key)
            by_group = keys.get(group.index)
            if by_group is None:
                keys[group.index] = [key]
                if group.index not in pieces:
                    pieces[group.index] = self._pieces_of(group)
            else:
                by_group.append(key)
        entries = [b",".join(texts).join(pieces[index]) for index, texts in keys.items()]
        return b'{"RequestItems":{' + b",".join(entries) + b"}}"

    def fill(self, answer: bytes | memoryview, reads: Sequence[KeyRead]) -> dict[str, Any]:
        """Put the rows of an answer into ``reads``; return its UnprocessedKeys by table, if any.

        Raises:
            StoreError: the answer is not JSON of the expected form, or holds an item that nobody asked for;
            the reads' rows are then undefined.
        """
        by_group: dict[int, dict[str, Any]] = {}
        groups: list[ReadGroup] = []
        for read in reads:
            group = read.group
            read.rows = rows = [None] * len(group.attributes or group.tables)
            rows_of = by_group.get(group.index)
            if rows_of is None:
                by_group[group.index] = {read.key: rows}
                groups.append(group)
            else:
                rows_of[read.key] = rows
        if all(group.own_items for group in groups):
            places = self._row_places
            plain: list[RowPlaces] = []
            for group in groups:
                if group.index not in places:
                    places[group.index] = _row_places(group)
                slots, table = places[group.index]
                plain.append((slots, table, by_group[group.index]))
            if fill_rows(answer, plain):
                return {}
        try:
            return _fill_any(answer, reads)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"DynamoDB: expected an answer to the BatchGetItem, got {type(error).__name__}: {error}",
                retryable=True,
            ) from error


def _row_places(group: ReadGroup) -> tuple[dict[str, int], str | None]:
    names = group.attributes or group.tables
    return {name: slot for slot, name in enumerate(names)}, group.tables[0] if group.attributes else None


def _fill_any(answer: bytes | memoryview, reads: Sequence[KeyRead]) -> dict[str, Any]:
    """Fill in the rows of whatever answer there is: the slow twin of plain ones, and all others' way."""
    by_group: dict[int, dict[str, KeyRead]] = {}
    for read in reads:
        read.rows = [None] * len(read.rows)
        by_group.setdefault(read.group.index, {})[read.key] = read
    document = orjson.loads(answer)
    responses = document["Responses"]
    for by_key in by_group.values():
        group = next(iter(by_key.values())).group
        if group.attributes:
            _fill_bundled(responses, group, by_key)
        elif group.own_items:
            _fill_rows(responses, group.tables, by_key)
        else:
            _fill_items(responses, group, by_key)
    unprocessed: dict[str, Any] = document.get("UnprocessedKeys") or {}
    return unprocessed


def _fill_rows(responses: dict[str, Any], tables: Sequence[str], by_key: dict[str, KeyRead]) -> None:
    rows_of = {key: read.rows for key, read in by_key.items()}
    for slot, table in enumerate(tables):
        for item in responses.get(table, ()):
            rows = rows_of[item["k"]["S"]]
            try:
                rows[slot] = item["v"]["B"]
            except KeyError:
                rows[slot] = NOT_A_ROW


def _projection(attributes: Sequence[str]) -> bytes:
    """Return what asks for the key and these attributes alone."""
    names = {f"#{number}": attribute for number, attribute in enumerate(attributes)}
    expression = orjson.dumps(",".join(["k", *names]))
    return b',"ProjectionExpression":%b,"ExpressionAttributeNames":%b' % (expression, orjson.dumps(names))


def _fill_bundled(responses: dict[str, Any], group: ReadGroup, by_key: dict[str, KeyRead]) -> None:
    names = group.attributes
    for item in responses.get(group.tables[0], ()):
        read = by_key[item["k"]["S"]]
        get = item.get
        try:
            read.rows = [None if (value := get(name)) is None else value["B"] for name in names]
        except KeyError:
            read.rows = [
                None if (value := get(name)) is None else value.get("B", NOT_A_ROW) for name in names
            ]


def _fill_items(responses: dict[str, Any], group: ReadGroup, by_key: dict[str, KeyRead]) -> None:
    names = [name for name, _ in group.key_attributes]
    for slot, table in enumerate(group.tables):
        for item in responses.get(table, ()):
            key = orjson.dumps({name: item[name] for name in names}).decode()
            by_key[key].rows[slot] = item
