"""The hot side of the DynamoDB store: one BatchGetItem for a coalescer's batch of reads.

Knows neither sockets nor views. Every read handed to `DynamoDBReader.fetch` is settled once: with rows, or
with the error that befell its own tables and key.

1. A key that the service left unprocessed is asked for again, alone, until it comes or the deadline does; it
   is never taken for absent. Reads that are complete are settled at once.
2. Failures that a moment cures are tried again inside the reads' deadlines, as far as the budget goes.
3. A call that was refused because of one table or one key is sent again in parts, until only the guilty reads
   fail. Groups that were guilty go in calls of their own for a while, so others don't pay each time.
4. Nothing is remembered about a key: the next fetch asks the service again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.batch_get import BatchGetCodec
from fastserve.store.dynamodb.call import LAWS, READ_OPERATION, Caller
from fastserve.store.dynamodb.rest import Rest
from fastserve.store.interface import Settle
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import TIMEOUT, Failure, Kind
from fastserve.wire.retry import delays

MAX_KEYS = 100
SUSPECT_FOR_S = 10.0
SHOWN_TABLES = 3


class DynamoDBReader:
    """A `serving.coalescer.Reader` over the wire client. ``timeout_s`` is the time of one try, once sent."""

    __slots__ = (
        "caller",
        "codec",
        "consistent",
        "loop",
        "max_keys",
        "settle",
        "signer",
        "suspects",
        "timeout_s",
    )

    def __init__(
        self,
        caller: Caller,
        settle: Settle,
        loop: asyncio.AbstractEventLoop,
        *,
        timeout_s: float,
        consistent: bool = False,
    ) -> None:
        self.max_keys: int = MAX_KEYS
        self.caller = caller
        self.codec = BatchGetCodec(consistent=consistent)
        self.consistent = consistent
        self.loop = loop
        self.settle = settle
        self.signer = caller.signer(READ_OPERATION)
        self.suspects: dict[ReadGroup, float] = {}
        self.timeout_s = timeout_s

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Ask for all keys of ``reads``; settle each when its rows are there or can't be had."""
        if self.suspects:
            for part in self._suspects_apart(reads):
                Batch(self, part).send()
        else:
            Batch(self, reads).send()

    def _suspects_apart(self, reads: Sequence[KeyRead]) -> list[list[KeyRead]]:
        now_s = self.caller.clock()
        self.suspects = {group: until_s for group, until_s in self.suspects.items() if until_s > now_s}
        parts: dict[ReadGroup | None, list[KeyRead]] = {}
        for read in reads:
            group = read.group
            parts.setdefault(group if group in self.suspects else None, []).append(read)
        return list(parts.values())


class Batch:
    """Reads that share a call, from the first try to their settling."""

    __slots__ = ("_cause", "_reader", "_reads", "_rest", "_timeout_s", "_waits")

    def __init__(self, reader: DynamoDBReader, reads: Sequence[KeyRead]) -> None:
        self._reader = reader
        self._reads = reads
        self._rest: Rest | None = None
        self._timeout_s = reader.timeout_s
        self._waits: dict[Kind, Iterator[float]] = {}
        # What made the last try necessary: when time runs out during that try, this is what to tell.
        self._cause: Failure | None = None

    def send(self) -> None:
        """Make a try, for all keys or for what is left of them."""
        reader = self._reader
        rest = self._rest
        try:
            body = reader.codec.body(self._reads) if rest is None else rest.body
        except (TypeError, ValueError) as error:  # a key that no encoding of text can hold
            self._on_failure(Failure(Kind.REFUSED, "key", str(error)))
            return
        deadline_s = max([read.deadline_s for read in self._reads])
        reader.caller.send(reader.signer, body, self._timeout_s, deadline_s, self._on_result)

    def _on_result(self, result: Answer | Failure) -> None:
        if isinstance(result, Failure):
            self._on_failure(result)
            return
        reader = self._reader
        reads = self._reads
        try:
            unprocessed = reader.codec.fill(result.body, reads)
            if self._rest is not None:
                self._rest.merge()
            if unprocessed:
                self._on_unprocessed(Rest(unprocessed, reads, consistent=reader.consistent))
                return
        except StoreError as error:
            self._on_failure(Failure(Kind.TRANSIENT, "malformed answer", error.message))
            return
        reader.caller.budget.give_back()
        reader.settle(reads if self._rest is None else _unfailed(reads))

    def _on_unprocessed(self, rest: Rest) -> None:
        """Settle the reads that are complete; ask for the rest after a pause.

        A call that brought some keys is a success and not a retry: the service makes progress, and the budget
        is for when it doesn't.
        """
        caller = self._reader.caller
        caller.counts.unprocessed += rest.keys
        waiting = set(map(id, rest.reads))
        complete = [read for read in _unfailed(self._reads) if id(read) not in waiting]
        asked = self._rest.keys if self._rest is not None else sum(read.group.size for read in self._reads)
        following = Batch(self._reader, rest.reads)
        following._rest = rest
        if rest.keys < asked:
            caller.budget.give_back()
            following.send_later(SOME_LEFT_OUT, free=True)
        else:
            following._waits = self._waits  # the same reads' schedule goes on
            following.send_later(ALL_LEFT_OUT, free=False)
        self._reader.settle(complete)

    # Failures.

    def _on_failure(self, failure: Failure) -> None:
        counts = self._reader.caller.counts
        counts.throttles += failure.kind is Kind.THROTTLED
        if failure.name == TIMEOUT:
            counts.timeouts += 1
            # Sixteen megabytes may take longer than a try is meant to, and would never come.
            self._timeout_s *= 2
        if failure.kind in LAWS:
            self.send_later(failure, free=False)
        elif failure.kind in PARTIAL and self._split(failure):
            pass
        else:
            self._note_suspects(failure)
            self._fail(self._reads, failure)

    def send_later(self, failure: Failure, *, free: bool) -> None:
        """Try again after a pause, unless the deadline or the budget says no; then ``failure`` is the end."""
        caller = self._reader.caller
        now_s = caller.clock()
        if failure.name != TIMEOUT or self._cause is None:
            self._cause = failure
        late = [read for read in _unfailed(self._reads) if read.deadline_s <= now_s]
        if late:
            self._fail(late, self._cause)
            if self._rest is None:  # a call for the rest is read with all the reads that it was made for
                self._reads = _unfailed(self._reads)
        delay_s = self._next_delay(failure.kind)
        if delay_s is None or not (free or caller.budget.take()):
            self._fail(self._reads, self._cause)
        else:
            caller.counts.retries += 1
            self._reader.loop.call_later(delay_s, self.send)

    def _next_delay(self, kind: Kind) -> float | None:
        reads = _unfailed(self._reads)
        if not reads:
            return None
        caller = self._reader.caller
        delay_s = next(self._waits[kind], None) if kind in self._waits else None
        if delay_s is None:
            # The first failure of its kind, or others have joined these reads since and may wait longer.
            deadline_s = max(read.deadline_s for read in reads)
            waits = self._waits[kind] = delays(LAWS[kind], deadline_s, caller.clock, caller.uniform)
            delay_s = next(waits, None)
        return delay_s

    def _split(self, failure: Failure) -> bool:
        """Send halves, cut between groups or else between keys; False if that is no use."""
        reads = sorted(_unfailed(self._reads), key=lambda read: read.group.index)
        groups = list(dict.fromkeys(read.group for read in reads))
        if len(groups) > 1:
            first = set(groups[: len(groups) // 2])
            halves = (
                [read for read in reads if read.group in first],
                [read for read in reads if read.group not in first],
            )
        elif len(reads) > 1 and failure.kind is Kind.REFUSED:
            halves = reads[: len(reads) // 2], reads[len(reads) // 2 :]
        else:
            return False
        for half in halves:
            Batch(self._reader, half).send()
        return True

    def _note_suspects(self, failure: Failure) -> None:
        if failure.kind is Kind.TABLE:
            until_s = self._reader.caller.clock() + SUSPECT_FOR_S
            self._reader.suspects.update((read.group, until_s) for read in self._reads)

    def _fail(self, reads: Sequence[KeyRead], failure: Failure) -> None:
        reads = _unfailed(reads)
        self._reader.caller.counts.failures += len(reads)
        errors: dict[int, StoreError] = {}
        for read in reads:
            group = read.group
            if group.index not in errors:
                errors[group.index] = failure.error(f"DynamoDB: reading {_tables(group)}")
            read.error = errors[group.index]
        self._reader.settle(reads)


PARTIAL = frozenset({Kind.TABLE, Kind.REFUSED})
SOME_LEFT_OUT = Failure(Kind.TRANSIENT, "UnprocessedKeys", "the service left keys out until the deadline")
ALL_LEFT_OUT = Failure(Kind.THROTTLED, "UnprocessedKeys", "the service left all keys out until the deadline")


def _unfailed(reads: Sequence[KeyRead]) -> list[KeyRead]:
    return [read for read in reads if read.error is None]


def _tables(group: ReadGroup) -> str:
    """Name a group's tables in a message: the service often doesn't say which of them it means."""
    names = ", ".join(group.tables[:SHOWN_TABLES])
    more = len(group.tables) - SHOWN_TABLES
    return f"{names} and {more} more tables" if more > 0 else names
