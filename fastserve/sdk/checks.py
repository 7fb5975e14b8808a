"""How a definition is checked, where its faults are reported, and what makes it immutable.

A constructor opens one `Checks`, passes every argument through it and keeps what comes back. A fault is
raised at once, unless a `Collector` is open (a feature repo is being loaded): then it is collected and the
constructor goes on with a stand-in value, so that one run shows all faults of a repo. Knows no definition in
particular.

Invariants:
1. Every fault carries the author's file and line: the innermost frame outside this package.
2. After a collected fault the definition is made all the same, with ``valid`` false; whoever checks something
   that depends on it skips the check when it isn't valid, so that one mistake is one message.
3. A definition can't be changed once it is made.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from types import MappingProxyType
from typing import Final, TypeVar

from fastserve.errors import DefinitionError, Location, shown
from fastserve.sdk.durations import format_duration

NAME_CHARS_MAX: Final = 120  # a table's name (255 at most) holds the workspace's and the view's
IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
IDENTIFIER_EXPECTED: Final = f"letters, digits and _, no digit first, at most {NAME_CHARS_MAX} characters"
FREE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")
FREE_NAME_EXPECTED: Final = f"a letter, then letters, digits and _ . : -, at most {NAME_CHARS_MAX} characters"

DURATION_MAX: Final = timedelta(days=36_500)
"""Nanoseconds since the epoch must hold what is so long ago, or so far ahead."""
NAME_UNKNOWN: Final = "?"  # of a definition whose name isn't even a text

_PACKAGE: Final = __name__.rpartition(".")[0] + "."
_T = TypeVar("_T")
Kind = type[_T] | tuple[type[_T], ...]


class Collector:
    """What one load has met: the definitions made and the faults found, each in order."""

    def __init__(self) -> None:
        self.definitions: list[Definition] = []
        self.errors: list[DefinitionError] = []

    def fault(self, message: str, location: Location) -> None:
        """Add a fault to those found."""
        self.errors.append(DefinitionError(message, location))


_collector: ContextVar[Collector | None] = ContextVar("fastserve_collector", default=None)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect faults and definitions made inside the block instead of raising at the first fault."""
    collector = Collector()
    token = _collector.set(collector)
    try:
        yield collector
    finally:
        _collector.reset(token)


def author_location() -> Location:
    """Return where the author called into this package."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads every source file on the way
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_PACKAGE):
        frame = frame.f_back
    return Location(frame.f_code.co_filename, frame.f_lineno)


def described(value: object) -> str:
    """Return what came, for a message: classes by their names, durations as names print them."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, timedelta):
        return format_duration(value)
    return shown(value)


class Checks:
    """The faults of one definition under construction."""

    __slots__ = ("subject", "location", "valid")

    def __init__(self, kind: str, name: object = None) -> None:
        self.subject = kind if name is None else f"{kind} {described(name)}"
        self.location = author_location()
        self.valid = True

    def fault(self, message: str, location: Location | None = None) -> None:
        """Report a fault of the definition.

        Raises:
            DefinitionError: no repo is being loaded.
        """
        self.valid = False
        collector = _collector.get()
        if collector is None:
            raise DefinitionError(f"{self.subject}: {message}", location or self.location)
        collector.fault(f"{self.subject}: {message}", location or self.location)

    def wrong(self, what: str, expected: str, got: object, location: Location | None = None) -> None:
        """Report that ``what`` is not what was expected."""
        self.fault(f"{what} (expected {expected}, got {described(got)})", location)

    def name(self, what: str, value: object, pattern: re.Pattern[str], expected: str) -> str:
        """Return a name that fits the pattern and is short enough for a table's name."""
        if isinstance(value, str) and len(value) <= NAME_CHARS_MAX and pattern.fullmatch(value):
            return value
        self.wrong(what, expected, value)
        return value if isinstance(value, str) else NAME_UNKNOWN

    def identifier(self, what: str, value: object) -> str:
        """Return the name of a view, a feature or a column."""
        return self.name(what, value, IDENTIFIER, IDENTIFIER_EXPECTED)

    def text(self, what: str, value: object) -> str:
        """Return a text, which may be empty."""
        if isinstance(value, str):
            return value
        self.wrong(what, "a str", value)
        return ""

    def optional_text(self, what: str, value: object) -> str | None:
        """Return a text that isn't empty, or None when none was given."""
        if value is None or (isinstance(value, str) and value):
            return value
        self.wrong(what, "a str that isn't empty, or None", value)
        return None

    def tags(self, value: object) -> Mapping[str, str]:
        """Return tags as a mapping that nobody changes any more."""
        if value is None:
            return MappingProxyType({})
        if not isinstance(value, Mapping):
            self.wrong("tags", "a dict of str to str", value)
            return MappingProxyType({})
        for key, tag in value.items():
            if not isinstance(key, str) or not isinstance(tag, str):
                self.wrong("tags", "a dict of str to str", {key: tag})
        return MappingProxyType(
            {key: tag for key, tag in value.items() if isinstance(key, str) and isinstance(tag, str)}
        )

    def choice(self, what: str, value: object, choices: Sequence[str]) -> str:
        """Return one of the choices, the first of them in place of anything else."""
        if isinstance(value, str) and value in choices:
            return value
        self.wrong(what, " or ".join(f'"{choice}"' for choice in choices), value)
        return choices[0]

    def duration(
        self, what: str, value: object, longest: timedelta | None = DURATION_MAX
    ) -> timedelta | None:
        """Return a duration above zero and up to the longest, or None in place of anything else."""
        if not isinstance(value, timedelta) or value <= timedelta(0):
            self.wrong(what, "a timedelta above zero", value)
        elif longest is not None and value > longest:
            self.wrong(what, f"a timedelta of at most {format_duration(longest)}", value)
        else:
            return value
        return None

    def optional_duration(self, what: str, value: object) -> timedelta | None:
        """Return a duration above zero, or None when none was given."""
        return None if value is None else self.duration(what, value)

    def instance(self, what: str, value: object, kind: Kind[_T], expected: str) -> _T | None:
        """Return the value when it is of that kind, else None."""
        if isinstance(value, kind):
            return value
        self.wrong(what, expected, value)
        return None

    def instances(self, what: str, value: object, kind: Kind[_T], expected: str) -> tuple[_T, ...]:
        """Return the members of a list (or the one given without a list) that are of that kind."""
        if isinstance(value, kind):
            return (value,)
        if isinstance(value, (str, bytes, Mapping, type)) or not hasattr(value, "__iter__"):
            self.wrong(what, f"a list of {expected}", value)
            return ()
        members = tuple(value)
        kept = [
            self.instance(f"{what}[{index}]", member, kind, expected) for index, member in enumerate(members)
        ]
        if not members:
            self.wrong(what, f"at least one {expected}", [])
        return tuple(member for member in kept if member is not None)


class Immutable:
    """Something that can't be changed once `_seal` was called at the end of its constructor."""

    _sealed = False

    def __setattr__(self, name: str, value: object) -> None:
        if self._sealed:
            raise AttributeError(f"{self!r} can't be changed once it's made: {name} was assigned")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} can't be changed once it's made: {name} was deleted")

    def _seal(self) -> None:
        object.__setattr__(self, "_sealed", True)  # past our own __setattr__


class Definition(Immutable):
    """What has a name in a feature repo. Two definitions are equal when they are the same object."""

    name: str
    description: str
    tags: Mapping[str, str]
    owner: str | None
    location: Location
    valid: bool

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'name', '?')!r})"

    def _describe(self, checks: Checks, description: object, tags: object, owner: object) -> None:
        self.description = checks.text("description", description)
        self.tags = checks.tags(tags)
        self.owner = checks.optional_text("owner", owner)

    def _register(self, checks: Checks, *, parts_valid: bool = True) -> None:
        """Seal the definition and tell the load that is going on, if any."""
        self.location = checks.location
        self.valid = checks.valid and parts_valid
        self._seal()
        collector = _collector.get()
        if collector is not None:
            collector.definitions.append(self)
