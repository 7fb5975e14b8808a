"""How fast rows go into a bundle's items, an UpdateItem each, and into tables of their own, 25 a call.

Against the stand-in in a process of its own, without latency and with DynamoDB's. Run as
`python -m perf.micro.bundle_writes [--rows 3000] [--bytes 400]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from unittest.mock import patch

from fastserve.store.interface import OnlineStore, TableSpec
from fastserve.store.url import open_store
from perf.load import standin_client
from perf.server import environment

VIEWS = 4


async def _measure(store: OnlineStore, rows: int, size: int) -> dict[str, tuple[float, float]]:
    """Return rows per second and CPU microseconds a row, into tables apart and into one bundle."""
    keys = [f"user{number:08}" for number in range(rows // VIEWS)]
    names = [f"view{number}" for number in range(VIEWS)]
    for name in ["items", *names]:
        await store.create_table(TableSpec(name))
    found = {}
    for way in ("apart", "bundled"):
        wall, cpu = time.perf_counter(), time.process_time()
        for name in names:
            made = [(key, os.urandom(size)) for key in keys]
            if way == "apart":
                await store.put_rows(name, made)
            else:
                await store.put_bundled("items", f"v:{name}", made)
        took = time.perf_counter() - wall
        found[way] = rows / took, (time.process_time() - cpu) / rows * 1e6
    return found


async def _run(url: str, rows: int, size: int) -> dict[str, tuple[float, float]]:
    store = await open_store(url)
    try:
        return await _measure(store, rows, size)
    finally:
        await store.close()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000)
    parser.add_argument("--bytes", type=int, default=400)
    options = parser.parse_args()
    for law in (None, "dynamodb"):
        with patch.dict(os.environ, environment(), clear=True), standin_client.running() as stand_in:
            stand_in.control(latency_ms=law)
            found = asyncio.run(_run(stand_in.store_url(), options.rows, options.bytes))
        for way, (per_s, cpu_us) in found.items():
            print(f"latency {law or 'none':9} {way:8} {per_s:9,.0f} rows/s {cpu_us:7.1f} us of CPU a row")


if __name__ == "__main__":
    main()
