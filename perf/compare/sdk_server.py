"""The bare server with the store read through aiobotocore: `python -m perf.compare.sdk_server`.

What `perf.bare` is but for its store client: one BatchGetItem of the SDK per request, whose rows come
decoded. So the difference to `perf.bare` is the SDK and a task per request. Like `perf.bare` it must not
import fastserve, answers look-ups of one service and validates nothing.

Invariants:
1. Values are right: a request is answered from the rows of its own call.
2. It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from typing import Any, cast

import numpy as np
import orjson
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from perf.bare import BareConnection, Store, VectorShape
from perf.load.end_of_input import end_of_input

_MAX_CONNECTIONS = 64


class SdkStore:
    """Answers requests by calls of the SDK, each in a task."""

    def __init__(self, client: Any, shape: VectorShape) -> None:
        self._client = client
        self._shape = shape
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, key: str, client: BareConnection) -> None:
        task = asyncio.get_running_loop().create_task(self._read(key, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, key: str, client: BareConnection) -> None:
        shape = self._shape
        keys = [{"k": {"S": key}}]
        answer = await self._client.batch_get_item(
            RequestItems={table: {"Keys": keys} for table in shape.tables}
        )
        found = answer["Responses"]
        rows = b"".join([found[table][0]["v"]["B"] for table in shape.tables])
        words = np.frombuffer(rows, "<f8").reshape(len(shape.tables), shape.row_words)
        picked = words[:, shape.first_word : shape.first_word + shape.features]
        vector = np.ascontiguousarray(picked).reshape(-1)
        text = orjson.dumps({"result": {"features": vector}}, option=orjson.OPT_SERIALIZE_NUMPY)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text)
        client.answer(head + text)


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    tables = tuple(options.tables.split(","))
    shape = VectorShape(tables, options.row_words, options.first_word, options.features)
    session = get_session()
    endpoint = f"http://127.0.0.1:{options.store_port}"
    config = AioConfig(max_pool_connections=_MAX_CONNECTIONS)
    async with session.create_client(
        "dynamodb", region_name="local", endpoint_url=endpoint, config=config
    ) as client:
        # A connection asks nothing of its store but `ask`.
        store = cast("Store", SdkStore(client, shape))
        server = await loop.create_server(lambda: BareConnection(store), "127.0.0.1", 0, backlog=1_024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await end_of_input(loop)
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.compare.sdk_server", description=__doc__)
    parser.add_argument("--store-port", type=int, required=True)
    parser.add_argument("--tables", required=True, help="names, with commas between")
    parser.add_argument("--row-words", type=int, required=True, help="8-byte words of a row")
    parser.add_argument("--first-word", type=int, required=True, help="where a row's features begin")
    parser.add_argument("--features", type=int, required=True, help="features of a row")
    os.environ.update(AWS_ACCESS_KEY_ID="perf", AWS_SECRET_ACCESS_KEY="perf")
    options = parser.parse_args()
    # As fastserve does: what is there stays, and collections are few.
    gc.freeze()
    uvloop.run(_serve(options))


if __name__ == "__main__":
    main()
