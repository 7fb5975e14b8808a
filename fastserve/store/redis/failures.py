"""What an error of Redis means, or of the way to it: go elsewhere, come back later, or give up. Pure.

Sources: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors and the cluster
specification's redirections; the texts are those of redis/redis (src/server.c, createSharedObjects).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from fastserve.errors import StoreError

MAX_TEXT_CHARACTERS = 200


class Kind(Enum):
    """What to do about a failure."""

    TRANSIENT = "transient"  # the same call may succeed a moment later
    MOVED = "moved"  # the slot lies with another node, from now on
    ASK = "ask"  # this key lies with another node, this once
    PERMANENT = "permanent"  # the call will never succeed


_TRANSIENT = frozenset(
    {
        "LOADING",  # the server reads its file
        "TRYAGAIN",  # keys of a slot that is on its way to another node
        "CLUSTERDOWN",
        "MASTERDOWN",
        "READONLY",  # it was a master a moment ago
        "BUSY",  # a script of somebody else's
        "UNBLOCKED",
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call, or one command of it, failed. ``address`` is where a redirection leads."""

    kind: Kind
    text: str
    timed_out: bool = False
    slot: int = 0
    address: tuple[str, int] | None = None

    def error(self, what: str) -> StoreError:
        """Return the error to tell a caller; ``what`` is what was tried, with the table."""
        retryable = self.kind is not Kind.PERMANENT
        text = self.text[:MAX_TEXT_CHARACTERS]
        return StoreError(f"Redis: {what}: {text}", retryable=retryable, timed_out=self.timed_out)


def classify(text: str) -> Failure:
    """Return what an error reply means."""
    code, _, rest = text.partition(" ")
    if code in {"MOVED", "ASK"}:
        match = re.fullmatch(r"([0-9]{1,5}) (.*):([0-9]{1,5})", rest)
        if match is not None:
            kind = Kind.MOVED if code == "MOVED" else Kind.ASK
            return Failure(kind, text, slot=int(match[1]), address=(match[2], int(match[3])))
    return Failure(Kind.TRANSIENT if code in _TRANSIENT else Kind.PERMANENT, text)


TIMED_OUT = Failure(Kind.TRANSIENT, "no answer within the call's time", timed_out=True)
CLOSED = Failure(Kind.PERMANENT, "the store was closed")
