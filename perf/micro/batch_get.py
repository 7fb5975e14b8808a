"""BatchGetItem's JSON: the body for a read group of 50 tables, and the rows out of the answer.

Run as `python -m perf.micro.batch_get`. Two reads of the group, 100 keys, rows of 816 bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import orjson

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb import batch_get
from fastserve.store.dynamodb.batch_get import BatchGetCodec
from fastserve.store.dynamodb.plain_rows import never
from perf.micro.timing import show

TABLES = 50
ROW_BYTES = 816


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what is measured of ours, by its name."""
    reads, answer = _reads(), _answer()
    codec = BatchGetCodec()
    yield "batch_get: body", lambda: codec.body(reads)
    yield "batch_get: rows filled in", lambda: codec.fill(answer, reads)


def _reads() -> list[KeyRead]:
    group = ReadGroup(0, tuple(f"perf.view_{number:02}" for number in range(TABLES)))
    return [KeyRead(group, f"user_{number}", 0.0) for number in range(2)]


def _answer() -> bytes:
    text = base64.b64encode(np.random.default_rng(1).bytes(ROW_BYTES)).decode()
    reads = _reads()
    rows = [{"k": {"S": read.key}, "v": {"B": text}} for read in reads]
    return orjson.dumps({"Responses": dict.fromkeys(reads[0].group.tables, rows), "UnprocessedKeys": {}})


def main() -> None:
    """Print the figures."""
    reads, answer, codec = _reads(), _answer(), BatchGetCodec()
    group = reads[0].group

    def table_by_table() -> object:
        keys = [{"k": {"S": read.key}} for read in reads]
        return orjson.dumps({"RequestItems": {table: {"Keys": keys} for table in group.tables}})

    def standard_library() -> object:
        keys = [{"k": {"S": read.key}} for read in reads]
        return json.dumps({"RequestItems": {table: {"Keys": keys} for table in group.tables}})

    show("body by one join per group", lambda: codec.body(reads))
    show("body as objects, by orjson", table_by_table)
    show("body as objects, by the standard library", standard_library)
    show("answer: orjson.loads", lambda: orjson.loads(answer))
    show("answer: rows filled in", lambda: codec.fill(answer, reads))
    with mock.patch.object(batch_get, "fill_rows", never):
        show("answer: rows filled in without the loop in C", lambda: codec.fill(answer, reads))


if __name__ == "__main__":
    main()
