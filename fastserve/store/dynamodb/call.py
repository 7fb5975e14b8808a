"""One signed try of an operation: signs, sends, checks what comes back, and says what it means.

Knows no rows. What a try repeats by itself is a request that the service refused because our clock is off:
the same request, signed once more with the service's time.

1. ``on_result`` gets each try's one outcome: a sound `Answer` with status 200, or a `Failure`.
2. Each try is signed with the credentials of its moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import orjson
from isal import isal_zlib

from fastserve.errors import StoreError
from fastserve.store.counts import StoreCounts
from fastserve.store.dynamodb.breaker import Breaker
from fastserve.store.dynamodb.connection import Call
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import Failure, Kind, classify
from fastserve.wire.retry import THROTTLED, TRANSIENT, RetryBudget, delays
from fastserve.wire.sigv4 import Credentials, RequestSigner, clock_offset_s

# Below this a refusal isn't the clock's fault; the service allows five minutes.
MIN_CLOCK_OFFSET_S = 5.0
READ_OPERATION = "BatchGetItem"
_CRC_HEADER = b"\r\nx-amz-crc32: "


class Transport(Protocol):
    """Who carries payloads: a pool, or a test's own."""

    def request(self, call: Call) -> None:
        """Send a call; its ``on_answer`` gets the outcome, now or later."""


class Source(Protocol):
    """Who has the credentials."""

    @property
    def current(self) -> Credentials:
        """The ones to sign with now."""

    @property
    def renewable(self) -> bool:
        """Whether others may come."""

    def ask_soon(self) -> None:
        """Note that the service called them expired."""


class Caller:
    """Sends operations to one endpoint; holds what all of them share.

    ``wall`` is the time since the epoch in seconds, by our clock, and ``clock`` the loop's.
    """

    __slots__ = (
        "_host",
        "_region",
        "_signers",
        "transport",
        "source",
        "wall",
        "clock",
        "uniform",
        "clock_offset_s",
        "budget",
        "counts",
        "breaker",
    )

    def __init__(
        self,
        transport: Transport,
        source: Source,
        host: str,
        region: str,
        wall: Callable[[], float],
        clock: Callable[[], float],
        uniform: Callable[[], float],
    ) -> None:
        self._host = host
        self._region = region
        self._signers: dict[str, RequestSigner] = {}
        self.transport = transport
        self.source = source
        self.wall = wall
        self.clock = clock
        self.uniform = uniform
        self.clock_offset_s = 0.0
        self.budget = RetryBudget()
        self.counts = StoreCounts()
        self.breaker: Breaker | None = None

    def carry_by(self, transport: Transport) -> None:
        """Hand calls to this transport from now on."""
        self.transport = transport

    def signer(self, operation: str) -> RequestSigner:
        """Return the signer of an operation, to be kept by who calls it often."""
        signer = self._signers.get(operation)
        if signer is None:
            signer = self._signers[operation] = RequestSigner(self._host, self._region, operation)
        return signer

    def send(
        self,
        signer: RequestSigner,
        body: bytes,
        timeout_s: float,
        deadline_s: float,
        on_result: Callable[[Answer | Failure], None],
    ) -> None:
        """Make one try, whose answer is due ``timeout_s`` after it is sent and by ``deadline_s``."""
        Try(self, signer, body, timeout_s, deadline_s, on_result).send()

    async def call(self, operation: str, body: bytes, *, timeout_s: float, deadline_s: float) -> bytes:
        """Return the body of an operation's answer, trying again until ``deadline_s``: for the control path.

        Raises:
            StoreError: the store refused, or went on failing until the deadline.
        """
        result = await self.outcome(operation, body, timeout_s=timeout_s, deadline_s=deadline_s)
        if isinstance(result, Failure):
            raise result.error(f"DynamoDB {operation}")
        return result

    async def outcome(
        self, operation: str, body: bytes, *, timeout_s: float, deadline_s: float
    ) -> bytes | Failure:
        """Do as `call` does, but return the failure that ends it."""
        signer = self.signer(operation)
        waits = {kind: delays(law, deadline_s, self.clock, self.uniform) for kind, law in PATIENT.items()}
        while True:
            result = await self._try(signer, body, timeout_s, deadline_s)
            if isinstance(result, bytes):
                self.budget.give_back()
                return result
            delay_s = next(waits[result.kind], None) if result.kind in waits else None
            if delay_s is None:
                return result
            await asyncio.sleep(delay_s)

    async def _try(
        self, signer: RequestSigner, body: bytes, timeout_s: float, deadline_s: float
    ) -> bytes | Failure:
        outcome: asyncio.Future[bytes | Failure] = asyncio.get_running_loop().create_future()

        def on_result(result: Answer | Failure) -> None:
            if not outcome.done():
                # Copied: the view is gone when the coroutine goes on.
                outcome.set_result(bytes(result.body) if isinstance(result, Answer) else result)

        self.send(signer, body, timeout_s, deadline_s, on_result)
        return await outcome


LAWS = {
    Kind.TRANSIENT: TRANSIENT,
    Kind.THROTTLED: THROTTLED,
    Kind.CREDENTIALS: THROTTLED,  # new ones are a second away, not a millisecond
}


# Whoever isn't waited for by a request can wait for a store that is gone.
PATIENT = {**LAWS, Kind.OPEN: THROTTLED}


class Try:
    """One request as the pool carries it."""

    __slots__ = (
        "_caller",
        "_signer",
        "_body",
        "_offset_s",
        "_on_result",
        "_resigned",
        "payload",
        "timeout_s",
        "deadline_s",
        "resent",
    )

    def __init__(
        self,
        caller: Caller,
        signer: RequestSigner,
        body: bytes,
        timeout_s: float,
        deadline_s: float,
        on_result: Callable[[Answer | Failure], None],
    ) -> None:
        self._caller = caller
        self._signer = signer
        self._body = body
        self._on_result = on_result
        self._offset_s = 0.0
        self._resigned = False
        self.payload = b""
        self.timeout_s = timeout_s
        self.deadline_s = deadline_s
        self.resent = False

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing, and may be on its way twice."""
        return self._signer is self._caller.signer(READ_OPERATION)

    def send(self) -> None:
        """Sign and hand over."""
        caller = self._caller
        self._offset_s = caller.clock_offset_s
        second = int(caller.wall() + self._offset_s)
        self.payload = self._signer.head(caller.source.current, second, self._body) + self._body
        caller.transport.request(self)

    def on_answer(self, answer: Answer | Failure) -> None:
        """Check the answer; a sound one goes to ``on_result`` as it is."""
        failure = answer if isinstance(answer, Failure) else examine(answer)
        if failure is None:
            self._on_result(answer)
            return
        if self._caller.breaker is not None:
            self._caller.breaker.on_failure(failure)
        if isinstance(answer, Failure):
            self._on_result(answer)
        elif failure.kind is Kind.CLOCK:
            self._sign_again(answer, failure)
        else:
            if failure.kind is Kind.CREDENTIALS:
                failure = self._note_refused_credentials(failure)
            self._on_result(failure)

    def _sign_again(self, answer: Answer, failure: Failure) -> None:
        """Take over the service's clock; if that is not what was wrong, no retry will help.

        Other calls may have taken it over since this one was signed: its own offset counts.
        """
        caller = self._caller
        offset_s = clock_offset_s(answer.header(b"date") or b"", caller.wall())
        off = offset_s is not None and abs(offset_s - self._offset_s) >= MIN_CLOCK_OFFSET_S
        if offset_s is None or not off or self._resigned:
            self._on_result(Failure(Kind.PERMANENT, failure.name, failure.text, failure.status))
            return
        caller.clock_offset_s = offset_s
        self._resigned = True
        self.send()

    def _note_refused_credentials(self, failure: Failure) -> Failure:
        source = self._caller.source
        if not source.renewable:
            return Failure(Kind.PERMANENT, failure.name, failure.text, failure.status)
        source.ask_soon()
        return failure


def examine(answer: Answer) -> Failure | None:
    """Return what is wrong with an answer, or None.

    The checksum is over the raw body, also of errors. isal's CRC takes 1.8 us for 100 KB, zlib's 24.
    """
    head = answer.lower_head
    at = head.find(_CRC_HEADER)
    if at >= 0:
        start = at + len(_CRC_HEADER)
        expected = head[start : head.find(b"\r\n", start)]
        if not expected.isdigit() or int(expected) != isal_zlib.crc32(answer.body):
            return Failure(Kind.TRANSIENT, "wrong checksum", "the answer's x-amz-crc32 isn't its body's")
    if answer.status != 200:
        return classify(answer.status, answer.body)
    return None


def decode(body: bytes | memoryview) -> dict[str, object]:
    """Return an answer's JSON object.

    Raises:
        StoreError: the answer isn't one, though its status was 200.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise StoreError(
            "DynamoDB: expected JSON in the answer, got something else", retryable=True
        ) from error
    if not isinstance(document, dict):
        raise StoreError("DynamoDB: expected a JSON object in the answer, got another value", retryable=True)
    return document
