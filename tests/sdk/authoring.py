"""What an author writes, as text, for type checkers refuse most of the mistakes made here on purpose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import fastserve
from fastserve import DefinitionError

VOCABULARY = {name: getattr(fastserve, name) for name in fastserve.__all__} | {
    "datetime": datetime,
    "timedelta": timedelta,
    "UTC": UTC,
    "DAY": timedelta(days=1),
    "HOUR": timedelta(hours=1),
    "MINUTE": timedelta(minutes=1),
}


def fault_of(expression: str, **names: object) -> str:
    """Return the message with which an author's expression is refused, less the place."""
    with pytest.raises(DefinitionError) as caught:
        eval(expression, VOCABULARY | names)
    assert caught.value.location is not None
    return caught.value.message
