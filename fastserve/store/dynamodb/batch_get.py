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
from fastserve.store.dynamodb.plain_items import plain_items

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
        by_group: dict[int, dict[str, KeyRead]] = {}
        for read in reads:
            group = read.group
            read.rows = [None] * len(group.attributes or group.tables)
            index = group.index
            if index in by_group:
                by_group[index][read.key] = read
            else:
                by_group[index] = {read.key: read}
        groups = [(next(iter(by_key.values())).group, by_key) for by_key in by_group.values()]
        try:
            items = plain_items(answer) if all(group.own_items for group, _ in groups) else None
            if items is not None:
                for group, by_key in groups:
                    _fill_plain(items, group, by_key)
                return {}
            return _fill_any(answer, groups)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"DynamoDB: expected an answer to the BatchGetItem, got {type(error).__name__}: {error}",
                retryable=True,
            ) from error


def _fill_any(
    answer: bytes | memoryview, groups: Sequence[tuple[ReadGroup, dict[str, KeyRead]]]
) -> dict[str, Any]:
    """Fill in the rows of whatever answer there is: the slow twin of plain ones, and all others' way."""
    document = orjson.loads(answer)
    responses = document["Responses"]
    for group, by_key in groups:
        if group.attributes:
            _fill_bundled(responses, group, by_key)
        elif group.own_items:
            _fill_rows(responses, group.tables, by_key)
        else:
            _fill_items(responses, group, by_key)
    unprocessed: dict[str, Any] = document.get("UnprocessedKeys") or {}
    return unprocessed


def _fill_plain(items: dict[str, list[dict[str, str]]], group: ReadGroup, by_key: dict[str, KeyRead]) -> None:
    if group.attributes:
        for item in items.get(group.tables[0], ()):
            by_key[item["k"]].rows = [item.get(name) for name in group.attributes]
        return
    rows_of = {key: read.rows for key, read in by_key.items()}
    for slot, table in enumerate(group.tables):
        for item in items.get(table, ()):
            rows_of[item["k"]][slot] = item.get("v", NOT_A_ROW)


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
