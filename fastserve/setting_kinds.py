"""The kinds of values that settings have: how each is read from text and from TOML.

It knows no setting and no source: whoever reads one makes the message of what a kind refuses.

Invariants
1. What a kind takes from text and from TOML is the same value; what it doesn't take is a ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)
_SHARE = re.compile(r"0(\.[0-9]{1,9})?|1(\.0{1,9})?", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,119}"
_STORE_NAME = re.compile(_NAME, re.ASCII)
_MAIN = "main"  # what metrics and traces call the store without a name
_NAMED_URL = re.compile(rf"({_NAME})=(\S+)", re.ASCII)
_YEARS = range(1700, 2200)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting's value is read; both readers raise ValueError for what they don't take."""

    expected: str
    from_text: Callable[[str], object]  # what a flag or a variable holds
    from_toml: Callable[[object], object]  # what the file holds, which has types of its own


def whole(minimum: int, maximum: int) -> Kind:
    """Return the kind of whole numbers in ``[minimum, maximum]``."""

    def from_text(text: str) -> int:
        if _DECIMAL.fullmatch(text) is None:  # ``int`` would take blanks, underscores and Arabic digits
            raise ValueError
        return from_toml(int(text))

    def from_toml(value: object) -> int:
        if type(value) is not int or not minimum <= value <= maximum:  # true is an int in Python
            raise ValueError
        return value

    return Kind(f"a whole number from {minimum} to {maximum}", from_text, from_toml)


def share() -> Kind:
    """Return the kind of shares, of decimals in [0, 1]."""

    def from_text(text: str) -> float:
        if _SHARE.fullmatch(text) is None:  # ``float`` would take nan, 1e-3 and blanks
            raise ValueError
        return float(text)

    def from_toml(value: object) -> float:
        if type(value) not in {int, float} or not 0 <= value <= 1:  # type: ignore[operator]
            raise ValueError
        return float(value)  # type: ignore[arg-type]

    return Kind("a number from 0 to 1", from_text, from_toml)


def any_text() -> Kind:
    """Return the kind of printable text that isn't empty."""

    def from_text(text: str) -> str:
        if not text.isprintable() or not text:  # control characters in a path or a URL are an accident
            raise ValueError
        return text

    return Kind("text that isn't empty", from_text, _string_of(from_text))


def choice(*words: str) -> Kind:
    """Return the kind of these words, in whatever case they come."""

    def from_text(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Kind("one of " + ", ".join(words), from_text, _string_of(from_text))


def instant() -> Kind:
    """Return the kind of points in time; they have an offset, since a server's local zone is no intention.

    int64 has nanoseconds from 1677 to 2262; windows reach back from a request's time.
    """

    def from_text(text: str) -> datetime:
        if _RFC3339.fullmatch(text) is None:  # ``fromisoformat`` would take week dates, and no offset
            raise ValueError
        return in_utc(datetime.fromisoformat(text.upper()))

    def from_toml(value: object) -> datetime:
        return in_utc(value) if isinstance(value, datetime) else string(value)

    def in_utc(time: datetime) -> datetime:
        if time.tzinfo is None:
            raise ValueError
        try:
            moment = time.astimezone(UTC)
        except OverflowError:  # year 1 with an offset that leads before it
            raise ValueError from None
        if moment.year not in _YEARS:
            raise ValueError
        return moment

    string = _string_of(from_text)
    return Kind(
        f"a time as in RFC 3339 from {_YEARS.start} to {_YEARS.stop - 1}, such as 2013-12-30T12:00:00Z, "
        "to the microsecond",
        from_text,
        from_toml,
    )


def _string_of(from_text: Callable[[str], _T]) -> Callable[[object], _T]:
    def from_toml(value: object) -> _T:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004 - the caller makes the message
        return from_text(value)

    return from_toml


def named_urls() -> Kind:
    """Return the kind of stores by name: as text separated by blanks, in the file a table of texts."""

    def from_text(text: str) -> Mapping[str, str]:
        named: dict[str, str] = {}
        for part in text.split():
            match = _NAMED_URL.fullmatch(part)
            if match is None or match[1] in named or match[1] == _MAIN:
                raise ValueError
            named[match[1]] = match[2]
        return named

    def from_toml(value: object) -> Mapping[str, str]:
        if not isinstance(value, dict):
            raise ValueError  # noqa: TRY004 - the caller makes the message
        named: dict[str, str] = {}
        for name, url in value.items():
            if (
                not isinstance(url, str)
                or not url
                or not url.isprintable()
                or not _STORE_NAME.fullmatch(name)
                or name == _MAIN
            ):
                raise ValueError
            named[name] = url
        return named

    return Kind(
        "NAME=URL, each name once, of letters, digits and _, not main, by blanks", from_text, from_toml
    )
