"""The hot side of the Redis store: one MGET for a coalescer's batch of reads; in a cluster one call per node.

Knows neither sockets nor views. Every read handed to `RedisReader.fetch` is settled once: with rows, or with
the error that befell its own tables and key.

1. Failures that a moment cures are tried again inside the reads' deadlines, as far as the budget goes.
2. A redirected read goes where it is sent, at once; the others of its call are settled without it.
3. A table is looked for before its first read, and again after a connection was lost: a server that comes
   back empty is an error that names the table, not a store full of absent rows. (In a cluster reads go on
   meanwhile.)
4. Nothing is remembered about a key: the next fetch asks again.

In a cluster the tables of one read share a slot (`layout`), so each read is an MGET of its own, and all those
for one node go out together. A bundle's item is a hash, and each read of one an HMGET of its own; those of a
batch go out together, behind its MGET.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import hiredis
import orjson

from fastserve.errors import StoreError, shown
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.counts import StoreCounts
from fastserve.store.interface import Settle, TableSpec
from fastserve.store.limits import check_key
from fastserve.store.redis.failures import CLOSED, TIMED_OUT, Failure, Kind, classify
from fastserve.store.redis.layout import slot_of, stored
from fastserve.store.redis.link import Call, Outcome
from fastserve.store.redis.nodes import Node, Nodes
from fastserve.wire.retry import TRANSIENT, RetryBudget, delays

MAX_KEYS = 500
"""Redis has no limit; while it works on a call it works on no other worker's."""

MAX_HOPS = 5
"""A read that is redirected more often waits like one that failed: the cluster is of two minds."""

MAX_KNOWN_LENGTHS = 256
SHOWN_TABLES = 3
ASKING = b"*1\r\n$6\r\nASKING\r\n"

Describe: TypeAlias = Callable[[Sequence[str]], Awaitable[dict[str, TableSpec | None]]]


class GroupKeys:
    """The keys of a read group's tables as parts of a command; what isn't the entity key is made once.

    A bundle's item is a hash, whose fields are asked for by a command of its own.
    """

    __slots__ = ("_between", "_fields", "_tables", "group", "is_bundle", "size")

    def __init__(self, group: ReadGroup) -> None:
        self.group = group
        self.size = len(group.tables)
        self.is_bundle = bool(group.attributes)
        fields = [attribute.encode() for attribute in group.attributes]
        self._fields = b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
        self._tables = [table.encode() for table in group.tables]
        self._between: dict[int, list[bytes]] = {}

    def parts(self, stored_key: bytes) -> bytes:
        """Return the keys of ``stored_key`` in all tables, each with its length before it."""
        between = self._between.get(len(stored_key))
        if between is None:
            between = self._make(len(stored_key))
            if len(self._between) < MAX_KNOWN_LENGTHS:
                self._between[len(stored_key)] = between
        return stored_key.join(between)

    def command(self, stored_key: bytes) -> bytes:
        """Return the command that reads this group's rows of one key, and nothing else."""
        keys = self.parts(stored_key)
        if self.is_bundle:
            return b"*%d\r\n$5\r\nHMGET\r\n%b%b" % (len(self.group.attributes) + 2, keys, self._fields)
        return b"*%d\r\n$4\r\nMGET\r\n%b" % (self.size + 1, keys)

    def _make(self, length: int) -> list[bytes]:
        heads = [b"$%d\r\n%b{" % (len(table) + length + 2, table) for table in self._tables]
        return [heads[0], *[b"}\r\n" + head for head in heads[1:]], b"}\r\n"]


class RedisReader:
    """A `serving.coalescer.Reader` over connections of our own."""

    __slots__ = (
        "_awaited",
        "_budget",
        "_counts",
        "_describe",
        "_doubting",
        "_known",
        "_learning",
        "_loop",
        "_losses",
        "_nodes",
        "_settle",
        "_uniform",
        "closed",
        "max_keys",
    )

    def __init__(
        self,
        nodes: Nodes,
        describe: Describe,
        settle: Settle,
        budget: RetryBudget,
        counts: StoreCounts,
        uniform: Callable[[], float],
    ) -> None:
        self.max_keys: int = MAX_KEYS
        self.closed = False
        self._nodes = nodes
        self._describe = describe
        self._settle = settle
        self._budget = budget
        self._counts = counts
        self._uniform = uniform
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, GroupKeys] = {}
        self._losses = nodes.losses
        self._learning: set[asyncio.Task[None]] = set()
        self._awaited: dict[int, list[KeyRead]] = {}
        self._doubting: asyncio.Task[None] | None = None

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Ask for all keys of ``reads``; settle each when its rows are there or can't be had."""
        if self.closed:
            self._fail(reads, CLOSED)
            return
        self._send(reads, None)

    async def close(self) -> None:
        """Fail what is looked for, and all that comes."""
        self.closed = True
        for task in self._learning:
            task.cancel()
        await asyncio.gather(*self._learning, return_exceptions=True)

    # Sending.

    def _send(self, reads: Sequence[KeyRead], before: Attempt | None) -> None:
        """Send reads, each to where its key lies."""
        nodes = self._nodes
        if self._losses != nodes.losses:
            self._losses = nodes.losses
            self._doubt()
        known = self._known
        slots = nodes.slots
        unknown: list[KeyRead] = []
        refused: list[KeyRead] = []
        parts: dict[Node, tuple[list[bytes], list[KeyRead]]] = {}
        commands: dict[Node, tuple[list[bytes], list[KeyRead]]] = {}
        keys = 0
        for read in reads:
            group = known.get(read.group.index)
            if group is None or group.group is not read.group:  # plans are compiled anew while readers live
                unknown.append(read)
                continue
            try:
                stored_key = stored(read.key.encode())
            except UnicodeEncodeError:
                read.error = StoreError(f"key: expected text without lone surrogates, got {shown(read.key)}")
                refused.append(read)
                continue
            if slots is None and not group.is_bundle:
                keys += group.size
                if not parts:
                    parts[nodes.first] = ([], [])
                payload, sent = parts[nodes.first]
                payload.append(group.parts(stored_key))
                sent.append(read)
                continue
            node = nodes.first if slots is None else slots[slot_of(stored_key)]
            if node not in commands:
                commands[node] = ([], [])
            payload, sent = commands[node]
            payload.append(group.command(stored_key))
            sent.append(read)
        for node, (payload, sent) in parts.items():
            payload.insert(0, b"*%d\r\n$4\r\nMGET\r\n" % (keys + 1))
            self._call(node, b"".join(payload), 1, sent, Attempt(self, node, sent, before).on_joined)
        for node, (payload, sent) in commands.items():
            attempt = Attempt(self, node, sent, before)
            self._call(node, b"".join(payload), len(sent), sent, attempt.on_replies)
        if unknown:
            self._learn_soon(unknown)
        if refused:
            self._settle(refused)

    def _call(
        self,
        node: Node,
        payload: bytes,
        replies: int,
        reads: Sequence[KeyRead],
        on_done: Callable[[Outcome], None],
    ) -> None:
        deadline_s = max([read.deadline_s for read in reads])
        self._nodes.watch()
        node.send(Call(payload, replies, deadline_s, on_done))

    # Tables.

    def _doubt(self) -> None:
        """Look again for the tables: a server that was lost may have come back empty.

        Reads of one server wait for it. In a cluster a node that is away must not hold up others,
        and tables may be described on that very node: there they are looked for beside the reads.
        """
        if self._nodes.slots is None:
            self._known.clear()
        elif self._known and self._doubting is None:
            self._doubting = self._loop.create_task(self._look_again())
            self._learning.add(self._doubting)
            self._doubting.add_done_callback(self._learning.discard)

    async def _look_again(self) -> None:
        groups = [keys.group for keys in self._known.values()]
        try:
            found = await self._describe(
                list(dict.fromkeys(name for group in groups for name in group.tables))
            )
            for group in groups:
                if any(found[name] is None for name in group.tables):
                    self._known.pop(group.index, None)  # its next read is told so
        except StoreError:
            self._losses = -1  # the next read has it done again
        finally:
            self._doubting = None

    def _learn_soon(self, reads: Sequence[KeyRead]) -> None:
        """Look for the tables of reads that are the first of their groups; others wait for the same look."""
        groups: list[ReadGroup] = []
        for read in reads:
            awaited = self._awaited.get(id(read.group))
            if awaited is None:
                self._awaited[id(read.group)] = [read]
                groups.append(read.group)
            else:
                awaited.append(read)
        if groups:
            deadline_s = max(read.deadline_s for read in reads)
            task = self._loop.create_task(self._learn(groups, deadline_s))
            self._learning.add(task)
            task.add_done_callback(partial(self._on_learned, groups))

    def _on_learned(self, groups: Sequence[ReadGroup], task: asyncio.Task[None]) -> None:
        self._learning.discard(task)
        if task.cancelled():  # perhaps before its first step
            self._fail(self._take_awaited(groups), CLOSED)

    def _take_awaited(self, groups: Sequence[ReadGroup]) -> list[KeyRead]:
        return [read for group in groups for read in self._awaited.pop(id(group), ())]

    async def _learn(self, groups: Sequence[ReadGroup], deadline_s: float) -> None:
        """Look for the tables of groups, then send the reads that wait for them."""
        names = list(dict.fromkeys(name for group in groups for name in group.tables))
        try:
            async with asyncio.timeout_at(deadline_s):
                found = await self._describe(names)
        except StoreError as error:
            self._fail(self._take_awaited(groups), error)
            return
        except TimeoutError:
            reads = self._take_awaited(groups)
            late = [read for read in reads if read.deadline_s <= deadline_s]
            self._fail(late, TIMED_OUT)
            if len(late) < len(reads):
                self._learn_soon([read for read in reads if read.deadline_s > deadline_s])
            return
        good: list[KeyRead] = []
        for group in groups:
            wrong = self._note(group, found)
            reads = self._take_awaited([group])
            if wrong is None:
                good += reads
            else:
                self._fail(reads, wrong)
        if good:
            self._send(good, None)

    def _note(self, group: ReadGroup, found: dict[str, TableSpec | None]) -> StoreError | None:
        """Remember a group whose tables are there; return what is wrong with one that has others."""
        try:
            for name in group.tables:
                spec = found[name]
                if spec is None:
                    raise StoreError(f"table {shown(name)}: there is no such table")
                check_key(spec, group.key_attributes)
        except StoreError as error:
            return StoreError(f"Redis: {error.message}")
        self._known[group.index] = GroupKeys(group)
        return None

    # Outcomes, told by attempts.

    def done(self, reads: Sequence[KeyRead]) -> None:
        """Settle reads whose rows have come."""
        self._budget.give_back()
        for read in reads:
            if not read.group.own_items:
                _decode_items(read)
        self._settle(reads)

    def retry_or_refuse(self, attempt: Attempt, failure: Failure, reads: Sequence[KeyRead]) -> None:
        """Do what a failure asks for."""
        if failure.kind is Kind.TRANSIENT:
            self._retry(attempt, failure, reads)
        elif failure.kind is Kind.PERMANENT:
            self._refuse(attempt, failure, reads)
        else:
            for read in reads:
                self._redirect(attempt, failure, read)

    def _retry(self, attempt: Attempt, failure: Failure, reads: Sequence[KeyRead]) -> None:
        """Try again after a pause, unless the deadline or the budget says no; then ``failure`` is the end."""
        self._counts.timeouts += failure.timed_out
        now_s = self._loop.time()
        if failure is not TIMED_OUT or attempt.cause is None:
            attempt.cause = failure
        late = [read for read in reads if read.deadline_s <= now_s]
        self._fail(late, attempt.cause)
        left = [read for read in reads if read.deadline_s > now_s]
        if not left:
            return
        delay_s = None if self.closed else self._next_delay(attempt, left)
        if delay_s is None or not self._budget.take():
            self._fail(left, attempt.cause)
        else:
            self._counts.retries += 1
            self._nodes.refresh_soon()
            self._loop.call_later(delay_s, self._send_again, left, attempt)

    def _send_again(self, reads: Sequence[KeyRead], attempt: Attempt) -> None:
        if self.closed:
            self._fail(reads, CLOSED)
        else:
            self._send(reads, attempt)

    def _next_delay(self, attempt: Attempt, reads: Sequence[KeyRead]) -> float | None:
        delay_s = None if attempt.waits is None else next(attempt.waits, None)
        if delay_s is None:
            # The first failure, or others have joined these reads since and may wait longer.
            deadline_s = max(read.deadline_s for read in reads)
            attempt.waits = delays(TRANSIENT, deadline_s, self._loop.time, self._uniform)
            delay_s = next(attempt.waits, None)
        return delay_s

    def _refuse(self, attempt: Attempt, failure: Failure, reads: Sequence[KeyRead]) -> None:
        """Fail reads for good; those of several groups are asked apart first, for one may be to blame."""
        by_group: dict[int, list[KeyRead]] = {}
        for read in reads:
            by_group.setdefault(read.group.index, []).append(read)
        if len(by_group) == 1 or self.closed:
            self._fail(reads, failure)
        else:
            for part in by_group.values():
                self._send(part, attempt)

    def _redirect(self, attempt: Attempt, failure: Failure, read: KeyRead) -> None:
        """Send a read to where the cluster says that its key lies."""
        if failure.address is None or self._nodes.slots is None or attempt.hops >= MAX_HOPS:
            self._retry(attempt, failure, [read])
            return
        following = Attempt(self, attempt.node, [read], attempt)
        following.hops = attempt.hops + 1
        if failure.kind is Kind.MOVED:
            self._nodes.move(failure.slot, failure.address, attempt.node)
            self._send([read], following)
            return
        group = self._known.get(read.group.index)
        if group is None or group.group is not read.group:
            self._retry(attempt, failure, [read])
            return
        node = self._nodes.at((failure.address[0] or attempt.node.address[0], failure.address[1]))
        following.node = node
        payload = ASKING + group.command(stored(read.key.encode()))
        self._call(node, payload, 2, [read], following.on_asked)

    def _fail(self, reads: Sequence[KeyRead], failure: Failure | StoreError) -> None:
        if not reads:
            return
        errors: dict[int, StoreError] = {}
        for read in reads:
            index = read.group.index
            if index not in errors:
                errors[index] = (
                    failure
                    if isinstance(failure, StoreError)
                    else failure.error(f"reading {_tables(read.group)}")
                )
            read.error = errors[index]
        self._counts.failures += len(reads)
        self._settle(reads)


class Attempt:
    """Reads that went out together, and what became of them before."""

    __slots__ = ("cause", "hops", "node", "reader", "reads", "waits")

    def __init__(
        self, reader: RedisReader, node: Node, reads: Sequence[KeyRead], before: Attempt | None
    ) -> None:
        self.reader = reader
        self.node = node
        self.reads = reads
        # What made this attempt necessary: when time runs out during it, this is what to tell.
        self.cause: Failure | None = None if before is None else before.cause
        self.hops: int = 0 if before is None else before.hops
        self.waits: Iterator[float] | None = None if before is None else before.waits

    def on_joined(self, outcome: Outcome) -> None:
        """Cut one array of values up among all reads."""
        reads = self.reads
        if isinstance(outcome, Failure):
            self.reader.retry_or_refuse(self, outcome, reads)
            return
        (values,) = outcome
        if isinstance(values, hiredis.ReplyError):
            self.reader.retry_or_refuse(self, classify(str(values)), reads)
            return
        at = 0
        for read in reads:
            end = at + len(read.group.tables)
            read.rows = values[at:end]
            at = end
        self.reader.done(reads)

    def on_replies(self, outcome: Outcome) -> None:
        """Take an array of values for each read."""
        if isinstance(outcome, Failure):
            self.reader.retry_or_refuse(self, outcome, self.reads)
            return
        good: list[KeyRead] = []
        bad: dict[Failure, list[KeyRead]] = {}
        for read, values in zip(self.reads, outcome, strict=True):
            if isinstance(values, hiredis.ReplyError):
                bad.setdefault(classify(str(values)), []).append(read)
            else:
                read.rows = values
                good.append(read)
        if good:
            self.reader.done(good)
        for failure, reads in bad.items():
            self.reader.retry_or_refuse(self, failure, reads)

    def on_asked(self, outcome: Outcome) -> None:
        """Take the values behind the answer to ASKING."""
        self.on_replies(outcome if isinstance(outcome, Failure) else outcome[1:])


def _decode_items(read: KeyRead) -> None:
    """Turn stored items into what DynamoDB's answer would hold for them."""
    try:
        read.rows = [None if data is None else orjson.loads(data) for data in read.rows]
    except orjson.JSONDecodeError:
        read.error = StoreError(f"Redis: table {_tables(read.group)}: expected an item, got something else")


def _tables(group: ReadGroup) -> str:
    names = ", ".join(group.tables[:SHOWN_TABLES])
    more = len(group.tables) - SHOWN_TABLES
    return f"{names} and {more} more tables" if more > 0 else names
