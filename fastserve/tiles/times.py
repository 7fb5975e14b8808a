"""Timestamps as text: RFC 3339 in, the API's ISO-8601 out, both exact to the nanosecond.

Invariants
1. ``parse_time_ns(format_time(t)) == t`` for every int64 ``t``.
2. Text without a zone is UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fastserve.tiles.windows import DAY_NS, SECOND_NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
    r"(?:\s?(?:([Zz])|([+-])(\d\d):?(\d\d)))?)?",
    re.ASCII,
)
_MINUTE_S = 60
_HOUR_MINUTES = 60
ZONE_MAX = timedelta(hours=18)
"""As wide as ISO 8601's readers go (Java's ZoneOffset, say); the widest in use are -12:00 and +14:00."""
INT64_MAX = 2**63 - 1


def parse_time_ns(text: str) -> int:
    """Return an ISO-8601 time or date as nanoseconds since the epoch.

    Raises:
        ValueError: not such a time, no such date, a zone beyond 18 hours, or outside what int64 nanoseconds
        hold (years 1677 to 2262).
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("expected an ISO-8601 time such as 2026-01-02T00:25:06.5Z")
    day, clock, second, fraction, _, sign, zone_hours, zone_minutes = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}:{second or '00'}+00:00")
    if sign:
        zone = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        if int(zone_minutes) >= _HOUR_MINUTES or zone > ZONE_MAX:
            raise ValueError("expected a zone from -18:00 to +18:00")
        try:
            moment = moment - zone if sign == "+" else moment + zone
        except OverflowError:
            raise ValueError("expected a time between the years 1678 and 2262") from None
    elapsed = moment - _EPOCH
    time_ns = (elapsed.days * 86_400 + elapsed.seconds) * SECOND_NS + int((fraction or "").ljust(9, "0"))
    if not -INT64_MAX <= time_ns <= INT64_MAX:
        raise ValueError("expected a time between the years 1678 and 2262")
    return time_ns


def format_time(time_ns: int) -> str:
    """Return nanoseconds since the epoch as ISO-8601 in UTC.

    The second has 0, 3, 6 or 9 digits, as few as are exact.
    """
    days, rest = divmod(time_ns, DAY_NS)
    seconds, fraction = divmod(rest, SECOND_NS)
    day = (_EPOCH + timedelta(days=days)).strftime("%Y-%m-%d")
    text = f"{day}T{seconds // 3600:02}:{seconds // _MINUTE_S % 60:02}:{seconds % 60:02}"
    if not fraction:
        return f"{text}Z"
    digits = f"{fraction:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"
