"""What stands in the pool's place while the endpoint is dead: it answers calls at once, and probes.

A closed breaker isn't on the way of calls at all; it is told of failures by whoever sees them.

Invariants
1. Every call gets its one outcome: `OPEN` at once, or, as a probe, what the pool brings.
2. A failure that the caller's own haste has made (`CUT_SHORT`) says nothing about the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from fastserve.store.dynamodb.connection import CUT_SHORT, Call
from fastserve.wire.circuit import Circuit
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import Failure, Kind

LOGGER = logging.getLogger(__name__)
OPEN = Failure(Kind.OPEN, "circuit open", "the store doesn't answer, and is only asked now and then")


class Endpoint(Protocol):
    """The pool, as far as it is needed here."""

    @property
    def answered(self) -> int:
        """How many calls have had an answer, of whatever status."""

    def request(self, call: Call) -> None:
        """Send a call."""


class Breaker:
    """A transport for bad times. ``switch`` is called with what is to carry calls from now on."""

    __slots__ = ("_bad_answers", "_circuit", "_clock", "_endpoint", "_switch", "opened")

    def __init__(
        self,
        endpoint: Endpoint,
        circuit: Circuit,
        clock: Callable[[], float],
        switch: Callable[[Endpoint | Breaker], None],
    ) -> None:
        self._endpoint = endpoint
        self._circuit = circuit
        self._clock = clock
        self._switch = switch
        self._bad_answers = 0
        self.opened = 0  # how often

    @property
    def is_open(self) -> bool:
        """Whether calls are answered here."""
        return not self._circuit.is_closed

    def on_failure(self, failure: Failure) -> None:
        """Be told how a call ended; ``failure.status`` is 0 where there was no answer."""
        if failure.kind is not Kind.TRANSIENT or failure is CUT_SHORT:
            return
        if failure.status:
            self._bad_answers += 1
        good = self._endpoint.answered - self._bad_answers
        if self._circuit.on_failure(good, self._clock()):
            self.opened += 1
            LOGGER.warning("DynamoDB doesn't answer (%s); reads fail at once until it does", failure.name)
            self._switch(self)

    def request(self, call: Call) -> None:
        """Answer a call, or send it as a probe."""
        if self._circuit.may_probe(self._clock()):
            self._endpoint.request(Probe(call, self))
        else:
            call.on_answer(OPEN)

    def on_probe(self, outcome: Answer | Failure) -> None:
        """Take in what a probe has brought: any answer but a fault of the service's is a good one."""
        if isinstance(outcome, Answer):
            went_well: bool | None = outcome.status < 500
        else:
            went_well = False if outcome.kind is Kind.TRANSIENT and outcome is not CUT_SHORT else None
        if self._circuit.on_probe(went_well, self._clock()):
            LOGGER.warning("DynamoDB answers again")
            self._switch(self._endpoint)


class Probe:
    """A call that also tells whether the store is back."""

    __slots__ = ("_breaker", "_call", "deadline_s", "payload", "resent", "timeout_s")

    def __init__(self, call: Call, breaker: Breaker) -> None:
        self._call = call
        self._breaker = breaker
        self.payload = call.payload
        self.timeout_s = call.timeout_s
        self.deadline_s = call.deadline_s
        self.resent = call.resent

    def on_answer(self, answer: Answer | Failure) -> None:
        """Tell the breaker, then the call's owner."""
        self._breaker.on_probe(answer)
        self._call.on_answer(answer)
