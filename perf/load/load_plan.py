"""What a generator is asked to do and what it reports, as plain data that crosses a pipe as JSON.

Knows no sockets.

Invariants:
1. A plan read back from its JSON is equal to the plan.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stream:
    """One service's load: closed when it has no rate, open otherwise; part of a mix when it has a share.

    `head` and `tail` are the body of a request before and after the entity key; with a `middle`, that and the
    key's partner stand between key and tail. A GET has none of them. A probe asks how soon the server answers
    at all: it is told apart from the requests that are counted.
    """

    name: str
    path: str
    head: str
    tail: str
    middle: str | None = None
    entities: int = 100_000
    key_law: str = "uniform"
    zipf_exponent: float = 1.0
    rate_per_s: float | None = None
    # Of all requests of the plan's mix: streams with a share go over its connections, in one closed loop.
    share: float | None = None
    method: str = "POST"
    is_probe: bool = False
    arrivals: str = "poisson"
    connections: int = 16
    headers: dict[str, str] = field(default_factory=dict)
    # "package.module:function" taking this configuration and giving a function (key, body) -> problem
    # or None.
    verify: str | None = None
    verify_with: dict[str, Any] = field(default_factory=dict)
    verify_every: int = 0
    # Answers 429 and 503 are counted apart from errors, and their latency from the sending of their requests.
    may_refuse: bool = False


@dataclass(frozen=True)
class LoadPlan:
    """A whole run against one server."""

    port: int
    streams: tuple[Stream, ...]
    host: str = "127.0.0.1"
    warmup_s: float = 1.0
    duration_s: float = 5.0
    timeout_s: float = 10.0
    mix_connections: int = 16
    seed: int = 1
    # Name -> pid: read with all below them at the start and the end of the measured time.
    watch: dict[str, int] = field(default_factory=dict)
    stand_in_port: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the plan as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LoadPlan:
        """Read a plan back."""
        streams = tuple(Stream(**stream) for stream in data["streams"])
        return cls(**{**data, "streams": streams})
