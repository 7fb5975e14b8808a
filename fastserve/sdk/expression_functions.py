"""What the operators and functions of calculations do with values that are there: null is dealt with before.

A function takes checked values (see `values`) and returns one, or None for null. Times are datetimes in UTC,
so days, weeks and months are UTC's.

Invariants
1. Integers stay exact; a result that int64 can't hold is a ValueError, also on the way.
2. Division and remainder by zero are null, as in most SQL; the remainder has the sign of the dividend.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastserve.sdk.values import INT64_MAX, INT64_MIN

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MONDAY: Final = datetime(1969, 12, 29, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


def int64(value: int) -> int:
    """Return the integer.

    Raises:
        ValueError: int64 can't hold it.
    """
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise ValueError("the result is an integer outside int64 (-2^63 to 2^63 - 1)")


def quotient(dividend: float, divisor: float) -> float | None:
    """Return the quotient as a float, null for a division by zero."""
    return dividend / divisor if divisor else None


def int_remainder(dividend: int, divisor: int) -> int | None:
    """Return the remainder with the dividend's sign, null for a division by zero."""
    if not divisor:
        return None
    rest = abs(dividend) % abs(divisor)
    return -rest if dividend < 0 else rest


def float_remainder(dividend: float, divisor: float) -> float | None:
    """Return the remainder with the dividend's sign, null for a division by zero.

    Raises:
        ValueError: the dividend is infinite, and has none.
    """
    if math.isinf(dividend) and divisor:
        raise ValueError("% of an infinite number")
    return math.fmod(dividend, divisor) if divisor else None


def root(value: float) -> float:
    """Return the square root.

    Raises:
        ValueError: the value is below zero.
    """
    if value < 0:
        raise ValueError("SQRT of a number below 0")
    return math.sqrt(value)


def logarithm(value: float) -> float:
    """Return the natural logarithm.

    Raises:
        ValueError: the value isn't above zero.
    """
    if value <= 0:
        raise ValueError("LN of a number that isn't above 0")
    return math.log(value)


def exponential(value: float) -> float:
    """Return e to that power.

    Raises:
        ValueError: a float can't hold it.
    """
    try:
        return math.exp(value)
    except OverflowError:
        raise ValueError("EXP of a number that is too large") from None


# --- times


def _months(moment: datetime) -> int:
    return moment.year * 12 + moment.month


_COUNTS: Final[dict[str, Callable[[datetime], int]]] = {
    "second": lambda moment: (moment - EPOCH) // _SECOND,
    "minute": lambda moment: (moment - EPOCH) // timedelta(minutes=1),
    "hour": lambda moment: (moment - EPOCH) // timedelta(hours=1),
    "day": lambda moment: (moment - EPOCH).days,
    "week": lambda moment: (moment - MONDAY).days // 7,
    "month": _months,
    "quarter": lambda moment: (_months(moment) - 1) // 3,
    "year": lambda moment: moment.year,
}
DIFFERENCE_UNITS: Final = tuple(_COUNTS)

PARTS: Final[dict[str, Callable[[datetime], Any]]] = {
    "year": lambda moment: moment.year,
    "quarter": lambda moment: (moment.month + 2) // 3,
    "month": lambda moment: moment.month,
    "week": lambda moment: moment.isocalendar().week,
    "day": lambda moment: moment.day,
    "hour": lambda moment: moment.hour,
    "minute": lambda moment: moment.minute,
    "second": lambda moment: moment.second,
    "dow": lambda moment: moment.isoweekday() % 7,
    "doy": lambda moment: moment.timetuple().tm_yday,
    "epoch": lambda moment: (moment - EPOCH) / _SECOND,
}
"""``epoch`` is a float64, the others are int64; ``dow`` counts from 0, Sunday; ``week`` is ISO's."""


def difference(unit: str) -> Callable[[datetime, datetime], int]:
    """Return the function that counts the unit's boundaries from the first time to the second."""
    count = _COUNTS[unit]
    return lambda start, end: count(end) - count(start)
