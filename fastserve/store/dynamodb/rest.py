"""What a BatchGetItem left unprocessed: which reads wait for it, and the call that asks for exactly that.

Pure. Asking again for whole reads would never end for a group of fifty tables of which a few keys are left
out each time, so what came is kept and only the rest is asked for.

1. An unprocessed key is never taken for an absent one: one that no read asked for makes the answer invalid.
2. `Rest.merge` leaves in each read the rows of all answers so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from fastserve.errors import StoreError
from fastserve.plan.keys import key_json
from fastserve.serving.coalescer import KeyRead

Row = str | bytes | None
PROJECTION = ("ProjectionExpression", "ExpressionAttributeNames")


class Rest:
    """Reads of which some keys are still to come; their rows so far are put aside."""

    __slots__ = ("body", "keys", "reads", "_rows")

    def __init__(self, unprocessed: Mapping[str, Any], reads: Sequence[KeyRead], *, consistent: bool) -> None:
        """Take over the reads that have a key in ``unprocessed``.

        Raises:
            StoreError: ``unprocessed`` isn't of the expected form, or holds what no read asked for.
        """
        by_key = {(table, identity): read for read in reads for table, identity in _keys_of(read)}
        entries: dict[str, dict[str, Any]] = {}
        waiting: dict[int, KeyRead] = {}
        self.keys = 0
        try:
            for table, entry in unprocessed.items():
                is_consistent = consistent
                for key in entry["Keys"]:
                    read = by_key[table, key_identity(key)]
                    waiting[id(read)] = read
                    self.keys += 1
                    is_consistent |= read.group.pushed
                entries[table] = {"Keys": entry["Keys"]}
                if is_consistent:
                    entries[table]["ConsistentRead"] = True
                for name in PROJECTION:
                    if name in entry:
                        entries[table][name] = entry[name]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                "DynamoDB: expected UnprocessedKeys to be among the keys asked for, got others",
                retryable=True,
            ) from error
        self.reads = list(waiting.values())
        self.body = orjson.dumps({"RequestItems": entries})
        self._rows: list[list[Row]] = [read.rows for read in self.reads]

    def merge(self) -> None:
        """Add the rows that were put aside to those that the reads have been given since."""
        for read, before in zip(self.reads, self._rows, strict=True):
            read.rows = [old if new is None else new for old, new in zip(before, read.rows, strict=True)]


def key_identity(key: Mapping[str, Any]) -> Any:
    """Return something hashable that is equal for equal keys, however order and numbers are written.

    Raises:
        ValueError: an attribute isn't of type S or N.
    """
    return frozenset((name, *_typed(value)) for name, value in key.items())


def _typed(value: Mapping[str, str]) -> tuple[str, str | Decimal]:
    ((kind, text),) = value.items()
    if kind == "S":
        return kind, text
    try:
        return kind, Decimal(text)
    except InvalidOperation:
        raise ValueError(f"expected a key attribute of type S or N, got {kind}") from None


def _keys_of(read: KeyRead) -> Iterable[tuple[str, Any]]:
    identity = key_identity(orjson.loads(key_json(read.group, read.key)))
    return ((table, identity) for table in read.group.tables)
