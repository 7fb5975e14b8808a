"""Errors by whose fault they are: the author's, the caller's, the store's or ours.

Every error that leaves a room of fastserve is one of these four, so that one place can turn it into an exit
code or an HTTP status. A message names the field, what was expected and what came. It never echoes more
than ``ECHO_LIMIT`` characters of what somebody sent: use `shown` for such text.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

ECHO_LIMIT = 64


def shown(value: object) -> str:
    """Return ``repr(value)`` cut to `ECHO_LIMIT` characters, for use in a message."""
    try:
        text = repr(_beginning(value, [ECHO_LIMIT + 1]))
    except ValueError:  # an integer of more digits than Python writes
        text = "too much to be shown"
    return text if len(text) <= ECHO_LIMIT else text[: ECHO_LIMIT - 1] + "…"


def _beginning(value: object, left: list[int]) -> object:
    """Return as much of a value as can be seen in `shown`: each of its parts has a character at least.

    The repr of a megabyte is not made to be thrown away, and that of lists in lists ends in a RecursionError.
    """
    left[0] -= 1
    if isinstance(value, (str, bytes)):
        return value[: ECHO_LIMIT + 1]
    if type(value) is list:
        return [_beginning(part, left) for part in takewhile(lambda _: left[0] > 0, value)]
    if type(value) is dict:
        pairs = takewhile(lambda _: left[0] > 0, value.items())
        return {_beginning(key, left): _beginning(part, left) for key, part in pairs}
    return value


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """Where in a feature repo something is defined: a file's path and a line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class FastserveError(Exception):
    """Whatever fastserve raises on purpose."""


class DefinitionError(FastserveError):
    """The author's fault: a definition, a setting or a feature repo that can't be used as written."""

    def __init__(self, message: str, location: Location | None = None) -> None:
        super().__init__(message if location is None else f"{location}: {message}")
        self.message = message
        self.location = location


class DefinitionErrors(DefinitionError):
    """All that is wrong in one feature repo, in the order in which it was found."""

    def __init__(self, errors: list[DefinitionError]) -> None:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__("\n".join([f"{count} in the feature repo:", *(f"  {error}" for error in errors)]))
        self.errors = tuple(errors)


class RequestError(FastserveError):
    """The caller's fault, or the server's state: ``status`` is the HTTP status, ``code`` the gRPC code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def code(self) -> int:
        """The gRPC code that goes with the HTTP status."""
        return GRPC_CODES.get(self.status, GRPC_UNKNOWN)


class StoreError(FastserveError):
    """The online store's fault; ``retryable`` says whether the same call may succeed a moment later.

    ``throttled`` is true where the store asked for less, ``timed_out`` where nothing but time was wanting.
    """

    def __init__(
        self, message: str, *, retryable: bool = False, throttled: bool = False, timed_out: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.throttled = throttled
        self.timed_out = timed_out


class InvariantError(FastserveError):
    """Our fault: something happened that the code's own reasoning excludes."""


GRPC_UNKNOWN = 2
# The statuses that Tecton's clients map, and the ones that only the HTTP layer gives.
GRPC_CODES = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    405: 12,
    408: 4,
    411: 3,
    413: 3,
    414: 3,
    429: 8,
    431: 3,
    500: 13,
    501: 12,
    503: 14,
    504: 4,
    505: 12,
}
