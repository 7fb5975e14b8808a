"""What a key of the local store costs: LMDB's own ways to read, our reader over them, and writing.

Run as `python -m perf.micro.local_store [ROWS]` (default 100,000 rows of each length, in a temporary folder,
in memory once written). Figures are CPU nanoseconds per key of this thread: the median of several rounds, all
ways in each; keys are drawn anew each round over all rows, so that caches miss as they do in service.
Writing is wall clock: it waits for the disk.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter, thread_time_ns

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.interface import TableSpec
from fastserve.store.local.environment import LocalEnvironment
from fastserve.store.local.reader import LocalReader
from fastserve.store.local.store import LocalStore, open_local
from fastserve.store.url import LocalSettings

LENGTHS = (1_002, 2_400)
BATCHES = (1, 16, 100)
KEYS_PER_ROUND = 2_000
ROUNDS = 9
HEADER_BYTES = 8
WRITE_BATCH_ROWS = 10_000

Draw = list[list[bytes]]


def timed_ns(run: Callable[[], None]) -> int:
    """Return the CPU time of this thread for ``run()``."""
    start = thread_time_ns()
    run()
    return thread_time_ns() - start


def begin_only(environment: LocalEnvironment, draw: Draw) -> None:
    begin = environment._lmdb.begin
    for _ in draw:
        with begin():
            pass


def get_bytes(environment: LocalEnvironment, draw: Draw) -> None:
    for keys in draw:
        with environment._lmdb.begin() as transaction:
            get = transaction.get
            [get(key) for key in keys]


def get_bytes_sliced(environment: LocalEnvironment, draw: Draw) -> None:
    for keys in draw:
        with environment._lmdb.begin() as transaction:
            get = transaction.get
            [None if (value := get(key)) is None else value[HEADER_BYTES:] for key in keys]


def get_buffers_copied(environment: LocalEnvironment, draw: Draw) -> None:
    for keys in draw:
        with environment._lmdb.begin(buffers=True) as transaction:
            get = transaction.get
            [None if (value := get(key)) is None else bytes(value[HEADER_BYTES:]) for key in keys]


def get_in_order(environment: LocalEnvironment, draw: Draw) -> None:
    for keys in draw:
        with environment._lmdb.begin() as transaction:
            get = transaction.get
            [None if (value := get(key)) is None else value[HEADER_BYTES:] for key in sorted(keys)]


def getmulti(environment: LocalEnvironment, draw: Draw) -> None:
    for keys in draw:
        with environment._lmdb.begin() as transaction, transaction.cursor() as cursor:
            {key: value[HEADER_BYTES:] for key, value in cursor.getmulti(keys)}


WAYS = (get_bytes, get_bytes_sliced, get_buffers_copied, get_in_order, getmulti)


def forget(reads: Sequence[KeyRead]) -> None:
    """Let go of the rows, as a request does once it is answered: memory that is kept costs page faults."""
    for read in reads:
        read.rows = []


async def written(store: LocalStore, table: str, length: int, rows: int) -> float:
    """Write ``rows`` rows of ``length`` bytes; return the seconds it took."""
    await store.create_table(TableSpec(table))
    row = random.Random(length).randbytes(length)
    start = perf_counter()
    for first in range(0, rows, WRITE_BATCH_ROWS):
        numbers = range(first, min(first + WRITE_BATCH_ROWS, rows))
        await store.put_rows(table, [(key_of(number), row) for number in numbers])
    return perf_counter() - start


def key_of(number: int) -> str:
    """Return a key; neighbours in time are no neighbours in the tree."""
    return f"user-{number * 7_919 % 1_000_003}"


def fetch(reader: LocalReader, group: ReadGroup, draw: Draw) -> Callable[[], None]:
    """Return what reads a draw through the reader; making the reads is the coalescer's work, not counted."""
    batches = [[KeyRead(group, key[4:].decode(), 0.0) for key in keys] for keys in draw]

    def run() -> None:
        for reads in batches:
            reader.fetch(reads)

    return run


def measure(store: LocalStore, table: str, rows: int) -> None:
    environment = store._environment
    number = environment.read(store._catalogue.require, table).number
    reader = store.reader(forget)
    group = ReadGroup(0, (table,))
    reader.fetch([KeyRead(group, "known", 0.0)])
    for batch in BATCHES:
        calls = KEYS_PER_ROUND // batch
        figures: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for way in (*WAYS, None):
                draw = [
                    [number + key_of(random.randrange(rows)).encode() for _ in range(batch)]
                    for _ in range(calls)
                ]
                run = fetch(reader, group, draw) if way is None else partial(way, environment, draw)
                name = "reader.fetch" if way is None else way.__name__
                figures.setdefault(name, []).append(timed_ns(run) / (calls * batch))
        shown = "  ".join(f"{name} {median(each):.0f}" for name, each in figures.items())
        print(f"  {batch:3} keys a call, ns per key:  {shown}")
    draw = [[]] * KEYS_PER_ROUND
    alone = median(timed_ns(partial(begin_only, environment, draw)) for _ in range(ROUNDS)) / KEYS_PER_ROUND
    print(f"  a transaction alone: {alone:.0f} ns")


async def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await open_local(LocalSettings(folder))
        for length in LENGTHS:
            table = f"rows-{length}"
            seconds = await written(store, table, length, rows)
            print(
                f"{rows} rows of {length} bytes: written in {seconds:.2f} s, {rows / seconds:,.0f} a second"
            )
            measure(store, table, rows)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
