"""How many bytes rows and items have by what their layouts say, and the units that DynamoDB charges for them.

What no layout knows (how long a key's text is, or a string's) is an assumption.

From "DynamoDB item sizes and formats" in the Developer Guide: an item's size is that of its attributes' names
in UTF-8 and of their values, a binary value counted as bytes and not as the base64 on the wire.

Invariants
1. An item's size is that of its key and of what else is in it: `key_bytes` and `row_bytes` add up.
"""

from __future__ import annotations

from fastserve.plan.views import ROW_ATTRIBUTE, ViewPlan
from fastserve.tiles.layout import Storage

# Typical, for want of knowledge: a UUID has 36 bytes, a number as text rarely more than 20.
ASSUMED_KEY_BYTES = 24
ASSUMED_VARIABLE_BYTES = 24
ASSUMED_NUMBER_BYTES = 10  # DynamoDB packs two digits into a byte and adds one; a float64 has up to 17 digits

READ_UNIT_BYTES = 4096
READ_UNITS_PER_STEP = 0.5  # eventually consistent, which the hot path is content with
CONSISTENT_UNITS_PER_STEP = 1.0  # of tables that are pushed to: the next read finds what was pushed
WRITE_UNIT_BYTES = 1024

TIME_NUMBER_BYTES = 11  # nanoseconds have 19 digits

_VALUE_BYTES = {Storage.BOOL: 1, Storage.JSON: ASSUMED_VARIABLE_BYTES, Storage.TIME: ASSUMED_VARIABLE_BYTES}


def item_bytes(view: ViewPlan) -> int:
    """Return the size of an item that holds nothing but a row of the view."""
    return key_bytes(view) + row_bytes(view)


def key_bytes(view: ViewPlan) -> int:
    """Return the size of the key attributes of an item with a row of the view."""
    return sum(len(name.encode()) for name, _ in view.key_attributes) + ASSUMED_KEY_BYTES


def row_bytes(view: ViewPlan, attribute: str | None = None) -> int:
    """Return the size of a row of the view in an item, its attribute's name included.

    ``attribute`` is the name to reckon with; None is the view's own.
    """
    if view.packed:
        variable = len(view.layout.variable_columns) * ASSUMED_VARIABLE_BYTES
        name = attribute or view.attribute or ROW_ATTRIBUTE
        beside = _time_bytes(name) if view.is_pushed else 0
        return len(name) + view.layout.fixed_bytes + -(-variable // 3) * 3 + beside
    names = [column.name for column in view.layout.columns]
    if view.timestamp_attribute is not None:
        names.append(view.timestamp_attribute)
    values = sum(_VALUE_BYTES.get(column.storage, ASSUMED_NUMBER_BYTES) for column in view.layout.columns)
    timestamp = ASSUMED_VARIABLE_BYTES if view.timestamp_attribute is not None else 0
    return sum(len(name.encode()) for name in names) + values + timestamp


def _time_bytes(row_attribute: str) -> int:
    """Return the size of the time beside a row that is pushed to, by which the newest one stays."""
    name = "e" if row_attribute == ROW_ATTRIBUTE else f"{row_attribute}:e"
    return len(name) + TIME_NUMBER_BYTES


def read_units(size_bytes: int, *, consistent: bool) -> float:
    """Return what reading an item takes."""
    steps = -(-size_bytes // READ_UNIT_BYTES)
    return steps * (CONSISTENT_UNITS_PER_STEP if consistent else READ_UNITS_PER_STEP)


def write_units(size_bytes: int) -> int:
    """Return what writing an item takes."""
    return -(-size_bytes // WRITE_UNIT_BYTES)
