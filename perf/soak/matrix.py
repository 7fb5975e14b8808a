"""The faults of a soak: what is done to store, network and clock, and what each of them may cause.

Knows no processes: a fault is data.

Invariants:
1. What a fault explains is the least that a client can't be spared. Faults that the server has to hide
   (a clock that is set, answers in pieces, keys that are left out, reloads) explain nothing.
2. A schedule has every fault alone once before it has mixtures, and a calm between any two.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perf.load.fault_proxy import Faults, LineFaults
from perf.soak.account import LATE, LOST, NULLS

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a store that fails in part may cause where retries don't suffice.
STORE = frozenset({"503", "504", "429", NULLS})
NOTHING: frozenset[str] = frozenset()
GROUPS = ("store", "network", "clients", "clock")
_MIXED_MAX = 3


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for a while."""

    name: str
    group: str
    stand_in: dict[str, Any] = field(default_factory=dict)
    # Of the proxy between server and store, and of the one between clients and server.
    to_store: Faults = field(default_factory=Faults)
    to_server: Faults = field(default_factory=Faults)
    clock_ahead_s: float = 0.0
    explains: frozenset[str] = NOTHING
    # For how long after its end it still explains: a breaker asks every 5 s at most.
    grace_s: float = 1.0
    seconds: float | None = None


def _both(**faults: Any) -> Faults:
    return Faults(LineFaults(**faults), LineFaults(**faults))


MATRIX = (
    Fault("throttled", "store", {"throttle_share": 0.05, "unprocessed_share": 0.05}, explains=STORE),
    Fault("keys left out", "store", {"unprocessed_share": 0.2}, explains=STORE),
    Fault("errors", "store", {"server_error_share": 0.05}, explains=STORE),
    Fault(
        "broken answers",
        "store",
        {"wrong_crc_share": 0.03, "cut_answer_share": 0.02, "drop_connection_share": 0.02},
        explains=STORE,
    ),
    Fault("connections reset", "store", {"reset_connection_share": 0.03}, explains=STORE),
    Fault("slow calls", "store", {"stall_share": 0.02, "stall_ms": 400.0}, explains=STORE),
    Fault("down", "store", {"server_error_share": 1.0}, explains=STORE, grace_s=7.0, seconds=2.0),
    Fault("far store", "network", to_store=Faults(LineFaults(5.0), LineFaults(10.0, 15.0)), explains=STORE),
    Fault("narrow line", "network", to_store=_both(bytes_per_s=4e6), explains=STORE),
    Fault("store's answers in pieces", "network", to_store=_both(slice_bytes=900)),
    Fault("line stalls", "network", to_store=_both(stall_share=0.01, stall_ms=700.0), explains=STORE),
    Fault("line resets", "network", to_store=_both(reset_share=0.01), explains=STORE),
    Fault("line cuts", "network", to_store=Faults(down=LineFaults(limit_bytes=200_000)), explains=STORE),
    Fault("partition", "network", to_store=Faults(hold=True), explains=STORE, grace_s=7.0, seconds=3.0),
    Fault(
        "black hole",
        "network",
        to_store=Faults(down=LineFaults(blackhole=True)),
        explains=STORE,
        grace_s=7.0,
        seconds=2.0,
    ),
    Fault("store refuses", "network", to_store=Faults(refuse=True), explains=STORE, grace_s=7.0),
    Fault("requests in pieces", "clients", to_server=_both(slice_bytes=300)),
    Fault("far clients", "clients", to_server=Faults(LineFaults(20.0, 30.0), LineFaults(20.0))),
    Fault("slow readers", "clients", to_server=Faults(down=LineFaults(bytes_per_s=3e6))),
    Fault("clients stall", "clients", to_server=_both(stall_share=0.02, stall_ms=900.0)),
    Fault("clients reset", "clients", to_server=_both(reset_share=0.02), explains=frozenset({LOST})),
    Fault(
        "clients cut",
        "clients",
        to_server=Faults(LineFaults(limit_bytes=60_000), LineFaults(limit_bytes=900_000)),
        explains=frozenset({LOST}),
    ),
    Fault(
        "clients in a black hole",
        "clients",
        to_server=Faults(up=LineFaults(blackhole=True)),
        explains=frozenset({LOST, LATE}),
        grace_s=13.0,
        seconds=1.0,
    ),
    Fault("clock ahead", "clock", clock_ahead_s=1_000.0),
    Fault("clock behind", "clock", clock_ahead_s=-900.0),
)


@dataclass(frozen=True)
class Phase:
    """Faults that are on at once."""

    faults: tuple[Fault, ...]
    seconds: float

    @property
    def name(self) -> str:
        """Name what is on."""
        return " + ".join(fault.name for fault in self.faults)

    @property
    def explains(self) -> frozenset[str]:
        """What any of them may cause."""
        return frozenset().union(*(fault.explains for fault in self.faults))

    @property
    def grace_s(self) -> float:
        """For how long they still explain afterwards."""
        return max(fault.grace_s for fault in self.faults)

    @property
    def stand_in(self) -> dict[str, Any]:
        """What the stand-in is told; answers are always in another order than the keys."""
        merged: dict[str, Any] = {"shuffle": True}
        for fault in self.faults:
            merged |= fault.stand_in
        return merged

    @property
    def to_store(self) -> Faults:
        """What the proxy before the store does."""
        return _of(self.faults, "to_store")

    @property
    def to_server(self) -> Faults:
        """What the proxy before the server does."""
        return _of(self.faults, "to_server")

    @property
    def clock_ahead_s(self) -> float:
        """By how much the server's clock is ahead."""
        return sum(fault.clock_ahead_s for fault in self.faults)


def _of(faults: tuple[Fault, ...], side: str) -> Faults:
    """Give the one that isn't calm: a phase has at most one fault of each side."""
    found: list[Faults] = [getattr(fault, side) for fault in faults]
    return next((each for each in found if each != Faults()), Faults())


CALM = Phase((Fault("calm", "none"),), 0.0)


def schedule(groups: tuple[str, ...], seconds: float, seed: int) -> Iterator[Phase]:
    """Give phases without end: each fault alone, then mixtures of up to three, one of each group."""
    chance = random.Random(seed)
    wanted = [fault for fault in MATRIX if fault.group in groups]
    if not wanted:
        while True:
            yield CALM
    for fault in chance.sample(wanted, len(wanted)):
        yield Phase((fault,), fault.seconds or seconds)
    while True:
        present = [group for group in groups if any(fault.group == group for fault in wanted)]
        chosen = chance.sample(present, chance.randint(1, min(_MIXED_MAX, len(present))))
        faults = tuple(chance.choice([fault for fault in wanted if fault.group == group]) for group in chosen)
        yield Phase(faults, min(fault.seconds or seconds for fault in faults))
