"""What goes wrong on purpose in the stand-in DynamoDB, and when.

Knows no sockets and no tables; randomness comes from a seed, so a run can be repeated.

Invariants:
1. A script comes first, one word per read call; shares are drawn when it is used up.
2. A read call is never unprocessed as a whole: the service answers that with an exception.
3. Only the operations named are touched, reads unless told otherwise.
4. A call that names a slow key is late as a whole, as an answer of the service is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import orjson

from perf.load.dynamo_error import validation

if TYPE_CHECKING:
    from collections.abc import Sequence

# What may happen to a call as a whole, in the order in which their shares are drawn.
WHOLE_CALL = (
    "throttle",
    "server_error",
    "drop_connection",
    "reset_connection",
    "cut_answer",
    "wrong_crc",
    "stall",
)
_NO_FAULT = "ok"


@dataclass(frozen=True)
class FaultPlan:
    """What is asked for; shares lie between 0 and 1."""

    shuffle: bool = False
    unprocessed_share: float = 0.0
    throttle_share: float = 0.0
    server_error_share: float = 0.0
    drop_connection_share: float = 0.0
    # Closed with RST, which the other end sees as an error and not as an end.
    reset_connection_share: float = 0.0
    cut_answer_share: float = 0.0
    wrong_crc_share: float = 0.0
    stall_share: float = 0.0
    stall_ms: float = 1_000.0
    slow_keys: tuple[str, ...] = ()
    slow_ms: float = 100.0
    script: tuple[str, ...] = ()
    operations: tuple[str, ...] = ("BatchGetItem", "GetItem")
    seed: int = 1

    @classmethod
    def from_json(cls, wanted: dict[str, Any]) -> FaultPlan:
        """Read the control endpoint's JSON.

        Raises:
            DynamoError: an unknown name, or an unknown word in the script.
        """
        unknown = set(wanted) - {entry.name for entry in fields(cls)}
        words = set(wanted.get("script", ())) - {*WHOLE_CALL, _NO_FAULT}
        if unknown or words:
            raise validation(f"unknown faults: {sorted(unknown | words)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in wanted.items()
        }
        return cls(**values)


@dataclass
class Faults:
    """The plan's execution: hands out one fate per call."""

    plan: FaultPlan = field(default_factory=FaultPlan)

    def __post_init__(self) -> None:
        self._random = random.Random(self.plan.seed)
        self._script = list(reversed(self.plan.script))
        shares = [getattr(self.plan, f"{name}_share") for name in WHOLE_CALL]
        self._shares = [(name, share) for name, share in zip(WHOLE_CALL, shares, strict=True) if share]
        # As they stand in a request's JSON, so that no call is parsed twice.
        self._slow = [orjson.dumps(key) for key in self.plan.slow_keys]
        plan = self.plan
        self.active = bool(
            self._shares or self._script or plan.unprocessed_share or plan.shuffle or plan.slow_keys
        )

    def fate(self, operation: str) -> str:
        """Draw what happens to this call as a whole."""
        if operation not in self.plan.operations:
            return _NO_FAULT
        if self._script:
            return self._script.pop()
        draw = self._random.random()
        for name, share in self._shares:
            if draw < share:
                return name
            draw -= share
        return _NO_FAULT

    def slow_s(self, operation: str, body: bytes) -> float:
        """Give how much later a call is answered for the keys that it names."""
        if operation not in self.plan.operations:
            return 0.0
        return self.plan.slow_ms / 1_000 if any(key in body for key in self._slow) else 0.0

    def unprocessed(self, operation: str, count: int) -> set[int]:
        """Draw which of a call's keys are handed back; never all of them."""
        share = self.plan.unprocessed_share
        if not share or operation not in self.plan.operations:
            return set()
        drawn = {index for index in range(count) if self._random.random() < share}
        if len(drawn) == count:
            drawn.discard(self._random.randrange(count))
        return drawn

    def order(self, items: Sequence[bytes]) -> list[bytes]:
        """Put the answers of one table into the order they are given in."""
        mixed = list(items)
        if self.plan.shuffle:
            self._random.shuffle(mixed)
        return mixed
