"""The servers that rows are read from, one connection to each, and which of them has which slot.

Connects when there is something to send, and anew after a loss. Knows no rows and retries nothing: a call
that can't be sent fails, and who made it decides.

Invariants
1. Every call given to `Node.send` gets exactly one outcome, two ticks after its deadline at the latest.
2. A connection is lent out only after the server has taken credentials and database.
3. What is known of slots is a guess that redirections mend; a wrong one costs a hop and never a wrong row.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import hiredis

from fastserve.errors import FastserveError
from fastserve.store.redis.failures import CLOSED, TIMED_OUT, Failure, Kind, classify
from fastserve.store.redis.layout import SLOTS
from fastserve.store.redis.link import Call, Link, Outcome

Address: TypeAlias = tuple[str, int]

TICK_S = 0.01
"""How exact deadlines are: one timer for all calls."""
HELD_UP_S = 0.05
"""After a pause like this answers may lie unread in the kernel's buffers: calls get one more tick."""
REFRESH_EVERY_S = 0.2
"""A cluster that is being resharded redirects thousands of calls a second; one look is for all of them."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What all connections share. ``greeting`` gives the commands that each begins with, anew."""

    greeting: Callable[[], Sequence[tuple[bytes, ...]]]
    tls: ssl.SSLContext | None = None
    timeout_s: float = 0.5
    connect_timeout_s: float = 1.0


def packed(command: Sequence[bytes]) -> bytes:
    """Return the bytes of a command."""
    return b"*%d\r\n" % len(command) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in command])


class Node:
    """One server."""

    def __init__(self, address: Address, settings: LinkSettings, on_lost: Callable[[], None]) -> None:
        self.address = address
        self._settings = settings
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._waiting: list[Call] = []
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether calls are without an outcome."""
        return bool(self._waiting) or (self._link is not None and self._link.busy)

    def send(self, call: Call) -> None:
        """Send a call now, or when there is a connection."""
        if self._link is not None:
            self._link.send(call)
        elif self._closed:
            call.finish(CLOSED)
        else:
            self._waiting.append(call)
            if self._connecting is None:
                self._connecting = self._loop.create_task(self._connect())

    def look(self, now_s: float) -> None:
        """End the calls whose time is over."""
        if self._link is not None:
            self._link.look(now_s, self._settings.timeout_s)
        if self._waiting:
            late = [call for call in self._waiting if call.deadline_s <= now_s]
            self._waiting = [call for call in self._waiting if call.deadline_s > now_s]
            for call in late:
                call.finish(TIMED_OUT)

    async def close(self) -> None:
        """Cut the connection; calls without an outcome fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._fail_waiting(CLOSED)
        if self._link is not None:
            self._link.cut(CLOSED)

    async def _connect(self) -> None:
        failure: Failure | None = None
        link: Link | None = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                link = await self._dial()
                failure = await self._greet(link)
            if failure is None and link.lost:
                failure = Failure(Kind.TRANSIENT, "connection lost as soon as it was opened")
        except (OSError, TimeoutError, UnicodeError) as error:
            failure = self._unreachable(error)
        except asyncio.CancelledError:
            failure = CLOSED
            raise
        finally:
            self._connecting = None
            if link is not None and failure is not None:
                link.cut(failure)
        if failure is not None or link is None:
            self._fail_waiting(failure or CLOSED)
            return
        self._link = link
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            link.send(call)

    async def _dial(self) -> Link:
        host, port = self.address
        tls = self._settings.tls
        _, link = await self._loop.create_connection(
            lambda: Link(self._loop.time, self._forget),
            host,
            port,
            ssl=tls,
            server_hostname=host if tls is not None else None,
        )
        return link

    async def _greet(self, link: Link) -> Failure | None:
        """Return why the server doesn't serve us, None if it does."""
        commands = self._settings.greeting()
        answered: asyncio.Future[Outcome] = self._loop.create_future()

        def on_done(outcome: Outcome) -> None:
            if not answered.done():
                answered.set_result(outcome)

        link.send(Call(b"".join(map(packed, commands)), len(commands), float("inf"), on_done))
        outcome = await answered
        if isinstance(outcome, Failure):
            return outcome
        errors = [reply for reply in outcome if isinstance(reply, hiredis.ReplyError)]
        return classify(str(errors[0])) if errors else None

    def _unreachable(self, error: Exception) -> Failure:
        host, port = self.address
        kind = Kind.PERMANENT if isinstance(error, ssl.SSLCertVerificationError) else Kind.TRANSIENT
        reason = str(error) or f"no answer within {self._settings.connect_timeout_s:g} s"
        return Failure(kind, f"can't connect to {host}:{port}: {reason}")

    def _forget(self, link: Link) -> None:
        if link is self._link:
            self._link = None
            self._on_lost()

    def _fail_waiting(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.finish(failure)


class Nodes:
    """All servers of a store. ``find_slots`` asks a cluster who has which slot; None: there is one server."""

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: LinkSettings,
        find_slots: Callable[[], Awaitable[Mapping[int, Address]]] | None = None,
    ) -> None:
        self._settings = settings
        self._find_slots = find_slots
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[Address, Node] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked_s = 0.0
        self._held_up = False
        self._closed = False
        self._addresses = addresses
        self.first = self.at(addresses[0])
        self.slots: list[Node] | None = None if find_slots is None else [self.first] * SLOTS
        self.losses = 0

    async def greet(self) -> None:
        """Connect to the first server that takes us.

        Raises:
            StoreError: none does; what the last one said.
        """
        failure: Failure | None = None
        for address in self._addresses:
            answered: asyncio.Future[Outcome] = self._loop.create_future()
            deadline_s = self._loop.time() + 2 * self._settings.connect_timeout_s
            node = self.at(address)
            self.watch()
            node.send(Call(packed((b"PING",)), 1, deadline_s, answered.set_result))
            outcome = await answered
            if not isinstance(outcome, Failure):
                self.first = node
                self.slots = None if self.slots is None else [node] * SLOTS
                return
            failure = outcome
        where = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        raise (failure or CLOSED).error(f"opening {where}")

    def at(self, address: Address) -> Node:
        """Return the server with this address."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self._settings, self._on_lost)
        return node

    def watch(self) -> None:
        """See to deadlines until all calls have their outcome; to be called when some are sent."""
        if self._timer is None and not self._closed:
            self._looked_s = self._loop.time()
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def move(self, slot: int, address: Address, asked: Node) -> None:
        """Note that a slot lies elsewhere; an address without a host means the server that was asked."""
        if self.slots is not None:
            self.slots[slot] = self.at((address[0] or asked.address[0], address[1]))
            self.refresh_soon()

    def refresh_soon(self) -> None:
        """Ask the cluster again who has which slot; once for all who want it."""
        if self._find_slots is not None and self._refreshing is None and not self._closed:
            self._refreshing = self._loop.create_task(self._refresh(self._find_slots))

    async def refresh(self) -> None:
        """Ask the cluster who has which slot.

        Raises:
            StoreError: no node of it answers.
        """
        if self._find_slots is not None:
            self._take_slots(await self._find_slots())

    async def close(self) -> None:
        """Cut all connections."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for node in self._nodes.values():
            await node.close()

    async def _refresh(self, find_slots: Callable[[], Awaitable[Mapping[int, Address]]]) -> None:
        try:
            self._take_slots(await find_slots())
            await asyncio.sleep(REFRESH_EVERY_S)
        except FastserveError:
            await asyncio.sleep(REFRESH_EVERY_S)  # the next failure or redirection asks again
        finally:
            self._refreshing = None

    def _take_slots(self, found: Mapping[int, Address]) -> None:
        slots = self.slots
        if slots is not None:
            for slot, address in found.items():
                slots[slot] = self.at(address)

    def _on_lost(self) -> None:
        self.losses += 1

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._held_up = now_s - self._looked_s > HELD_UP_S and not self._held_up
        self._looked_s = now_s
        nodes = [node for node in self._nodes.values() if node.busy]
        self._timer = self._loop.call_later(TICK_S, self._tick) if nodes else None
        if not self._held_up:
            for node in nodes:
                node.look(now_s)
