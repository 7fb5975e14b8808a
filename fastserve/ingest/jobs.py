"""Which partitions of an unfinished job are written: starting it again goes on where it ended.

Invariants
1. A fingerprint covers all that decides which rows a partition has: definition, inputs, time, DuckDB's
   version (whose hash cuts the partitions). Another fingerprint is another job.
2. A partition is recorded only after the store has taken all of its rows.
3. A finished job leaves no records: running it again writes the same rows once more.
4. What was written into tables that have been made anew since counts for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import duckdb
import orjson

from fastserve.ingest.definition import definition
from fastserve.ingest.files import InputFile
from fastserve.ingest.registry import Registry
from fastserve.plan.views import ViewPlan

JOB_FORMAT = 2
"""Raise it when partitions are cut otherwise or rows are made otherwise from the same input."""


def fingerprint(view: ViewPlan, files: Sequence[InputFile], until_ns: int, partitions: int) -> str:
    """Return what two runs of the same job over files have in common."""
    inputs = [list(file.identity) for file in files]
    return fingerprint_of(view, [duckdb.__version__, inputs], until_ns, partitions)


def fingerprint_of(view: ViewPlan, inputs: Sequence[object], until_ns: int, partitions: int) -> str:
    """Return what two runs of the same job have in common; ``inputs`` says what is read, and what cuts it."""
    facts = [JOB_FORMAT, view.name, definition(view), inputs, until_ns, partitions]
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]


class JobRecords:
    """The records of one job, for tables that are there since ``since_ns`` (`places`).

    They may outlive the rows: they lie in another table, perhaps in another store.
    """

    def __init__(self, registry: Registry, name: str, partitions: int, since_ns: int) -> None:
        self._registry = registry
        self._keys = [f"job/{name}.{since_ns}/{partition}" for partition in range(partitions)]

    async def done(self) -> dict[int, tuple[int, int]]:
        """Return the partitions that are written, with how many keys and bytes each came to."""
        records = await self._registry.read(self._keys)
        return {place: (int(r["keys"]), int(r["bytes"])) for place, r in enumerate(records) if r is not None}

    async def record(self, partition: int, keys: int, size: int) -> None:
        """Record that all rows of a partition are written."""
        await self._registry.write({self._keys[partition]: {"keys": keys, "bytes": size}})

    async def clear(self) -> None:
        """Forget the job, which is finished."""
        await self._registry.delete(self._keys)
