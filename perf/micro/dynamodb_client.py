"""What a call to DynamoDB costs this process: `python -m perf.micro.dynamodb_client`.

CPU (user + system) per BatchGetItem of 1, 16 and 100 keys with rows of 1 KB:
- `reader, fake transport`: building, signing, framing, checksum, JSON and settling, without a kernel;
- `reader, sockets`: the same over loopback to the stand-in, in a process of its own;
- `aiobotocore`: the same calls through the SDK.
Then the signature alone, beside what it would cost with `hmac.digest`, and the checksum beside zlib's.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
import zlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import uvloop
from aiobotocore.session import AioSession
from isal import isal_zlib

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.call import Caller
from fastserve.store.dynamodb.connection import Call, Connection
from fastserve.store.dynamodb.reader import DynamoDBReader
from fastserve.store.url import open_store
from fastserve.wire.sigv4 import Credentials, RequestSigner
from perf.load.standin_client import StandInAddress, running
from perf.micro.client_wire import TABLE, answer_for

COUNTS = (1, 16, 100)
ROW_BYTES = 1023
GROUP = ReadGroup(0, (TABLE,))
CREDENTIALS = Credentials("AKIDEXAMPLE", "secret")
IN_FLIGHT = 8
ROUNDS = 5


class FixedSource:
    current = CREDENTIALS
    renewable = False

    def ask_soon(self) -> None:
        pass


class FakeTransport:
    """Answers what is written with prepared bytes, put into the connection's own buffer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.connection = Connection(self)
        self.connection.connection_made(cast("asyncio.Transport", self))

    def request(self, call: Call) -> None:
        self.connection.send(call, 0.0)

    def write(self, payload: bytes) -> None:
        connection = self.connection
        at, whole = 0, len(self.answer)
        while at < whole:
            buffer = connection.get_buffer(-1)
            size = min(len(buffer), whole - at)
            buffer[:size] = self.answer[at : at + size]
            connection.buffer_updated(size)
            at += size

    def on_free(self, connection: Connection) -> None:
        pass

    def on_lost(self, connection: Connection) -> None:
        raise AssertionError

    def maybe_resend(self, call: Call) -> bool:
        return False


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Return the CPU of one call of ``work``: the least of several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        before_ns = time.process_time_ns()
        for _ in range(times):
            work()
        rounds.append((time.process_time_ns() - before_ns) / times / 1000)
    return min(rounds)


async def cpu_us_of(work: Callable[[], Awaitable[object]], times: int) -> float:
    rounds = []

    async def lane() -> None:
        for _ in range(times // IN_FLIGHT):
            await work()

    await lane()
    for _ in range(ROUNDS):
        before_ns = time.process_time_ns()
        await asyncio.gather(*[lane() for _ in range(IN_FLIGHT)])
        rounds.append((time.process_time_ns() - before_ns) / (times // IN_FLIGHT * IN_FLIGHT) / 1000)
    return min(rounds)


def reads_of(keys: Sequence[str], deadline_s: float) -> list[KeyRead]:
    return [KeyRead(GROUP, key, deadline_s) for key in keys]


def on_fake_transport(loop: asyncio.AbstractEventLoop, keys: Sequence[str], row: str) -> float:
    settled: list[Sequence[KeyRead]] = []
    transport = FakeTransport(answer_for(keys, row))
    caller = Caller(transport, FixedSource(), "127.0.0.1", "local", time.time, loop.time, lambda: 0.5)
    reader = DynamoDBReader(caller, settled.append, loop, timeout_s=1.0)

    def once() -> None:
        reads = reads_of(keys, loop.time() + 10)
        reader.fetch(reads)
        if settled.pop() is not reads or len(reads[0].rows[0] or "") != len(row):
            raise AssertionError

    return cpu_us(once, 20_000 // len(keys) + 500)


async def on_sockets(loop: asyncio.AbstractEventLoop, url: str, keys: Sequence[str]) -> float:
    store = await open_store(url)
    waiting: dict[int, asyncio.Future[None]] = {}

    def settle(reads: Sequence[KeyRead]) -> None:
        if reads[0].error is not None:
            raise reads[0].error
        waiting.pop(id(reads[0])).set_result(None)

    reader = store.reader(settle)

    async def once() -> None:
        reads = reads_of(keys, loop.time() + 10)
        done = waiting[id(reads[0])] = loop.create_future()
        reader.fetch(reads)
        await done

    try:
        return await cpu_us_of(once, 20_000 // len(keys) + 400)
    finally:
        await store.close()


async def with_the_sdk(endpoint: str, keys: Sequence[str]) -> float:
    request = {"RequestItems": {TABLE: {"Keys": [{"k": {"S": key}} for key in keys]}}}
    session: Any = AioSession()
    async with session.create_client("dynamodb", region_name="local", endpoint_url=endpoint) as client:

        async def once() -> None:
            answer = await client.batch_get_item(**request)
            if len(answer["Responses"][TABLE]) != len(keys):
                raise AssertionError

        return await cpu_us_of(once, 1000 // len(keys) + 160)


def sign_with_hmac_digest(signer_key: bytes, body: bytes, canonical: str, to_sign: str) -> str:
    digest = hashlib.sha256((canonical + hashlib.sha256(body).hexdigest()).encode()).hexdigest()
    return hmac.digest(signer_key, (to_sign + digest).encode(), "sha256").hex()


def signatures() -> None:
    print("\nsignature and checksum, us")
    for size in (200, 2048, 10_000):
        body = b"x" * size
        signer = RequestSigner("dynamodb.eu-west-1.amazonaws.com", "eu-west-1", "BatchGetItem")
        ours = cpu_us(partial(signer.head, CREDENTIALS, 1_700_000_000, body), 50_000)
        plain = cpu_us(partial(sign_with_hmac_digest, b"k" * 32, body, "c" * 250, "s" * 80), 50_000)
        print(f"  sign {size:>6} bytes: head {ours:5.2f}   stages with hmac.digest, no head {plain:5.2f}")
    for size in (1000, 100_000):
        body = b"x" * size
        isal = cpu_us(partial(isal_zlib.crc32, body), 20_000)
        plain = cpu_us(partial(zlib.crc32, body), 20_000)
        print(f"  crc32 {size:>6} bytes: isal {isal:5.2f}   zlib {plain:5.2f}")


async def measure(address: StandInAddress) -> None:
    loop = asyncio.get_running_loop()
    row = b64encode(os.urandom(ROW_BYTES)).decode()
    address.prepare(TABLE, [row])
    print(f"CPU per BatchGetItem of N keys with rows of {ROW_BYTES} bytes, us, {IN_FLIGHT} in flight")
    print("  keys  reader, fake transport  reader, sockets  aiobotocore  ratio")
    for count in COUNTS:
        keys = [f"user-{number}" for number in range(count)]
        fake = on_fake_transport(loop, keys, row)
        ours = await on_sockets(loop, address.store_url(), keys)
        sdk = await with_the_sdk(address.endpoint, keys)
        print(f"  {count:>4}  {fake:>22.1f}  {ours:>15.1f}  {sdk:>11.1f}  {sdk / ours:>5.1f}")


def main() -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="secret")
    with running() as address:
        uvloop.run(measure(address))
    signatures()


if __name__ == "__main__":
    main()
