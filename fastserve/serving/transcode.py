"""Rows that stand for others: the null row of a view, and rows of an older schema in the current one.

Invariants
1. A null row is empty in every slot and null in every column; its effective time is the smallest int64.
2. What a transcoded row could not have known is null (attributes) or neutral (aggregates), never guessed, and
   no component of aggregates is taken over in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from fastserve.plan.views import ViewPlan
from fastserve.tiles.layout import FLAG_NULL_BITMAP, NULL_INT64, RowLayout, Storage
from fastserve.tiles.rows import RowBuilder, RowError, decode_row, effective_ns_of, encode_row

OldLayouts = Mapping[str, Mapping[int, RowLayout]]
"""Layouts that a view's rows may still have, by view name and schema id."""


def null_row(view: ViewPlan) -> bytes:
    """Return the row that stands for an absent one."""
    builder = RowBuilder(view.layout, 1)
    builder.set_effective_ns(NULL_INT64)
    for component in view.schema.components if view.schema else ():
        builder.set_words(component.word, np.array([component.neutral_bits], np.int64))
    return builder.build()[0]


def transcode(row: bytes, old: RowLayout, view: ViewPlan) -> bytes:
    """Return a row of an older schema in the view's current one, columns matched by name.

    Columns that the old schema lacks, or has with another type, are null, or neutral in a compacted row.

    Raises:
        RowError: the row doesn't fit the old layout either, or cuts a window in another way than the current
            one does.
    """
    values = decode_row(old, row)
    if view.schema is None:
        return encode_row(view.layout, _kept(values, old, view.layout), effective_ns_of(row))
    words = np.frombuffer(null_row(view), "<i8", view.layout.fixed_words).copy()
    irs: list[bytes] = []
    old_words = np.frombuffer(row, "<i8", old.fixed_words)
    known = {_component_name(column.name) for column in old.columns}
    for column in view.layout.columns:
        if column.storage is Storage.BYTES and (
            column.name in values or _component_name(column.name) not in known
        ):
            irs.append(values.get(column.name, b""))
        elif column.name in values:
            words[column.word] = old_words[old.by_name[column.name].word]
        elif _component_name(column.name) in known:  # the row has others of its slots: half a sum is wrong
            raise RowError(f"expected {column.name!r}, got a row of another horizon or aggregation interval")
    words[1] = old_words[1]
    ends = words.view("<u4")
    for column, end in zip(view.layout.bytes_columns, accumulate(map(len, irs)), strict=True):
        ends[column.offset // 4] = end
    raw = bytearray(words.tobytes())
    raw[1] = row[1] & ~FLAG_NULL_BITMAP
    raw += b"".join(irs)
    return bytes(raw) + bytes(-len(raw) % 3)


def _component_name(name: str) -> str:
    """Return what the slots of one component have in common in their columns' names."""
    return name.rpartition(":")[0]


def _kept(values: dict[str, Any], old: RowLayout, new: RowLayout) -> dict[str, Any]:
    return {
        column.name: values[column.name]
        for column in new.columns
        if column.name in values and old.by_name[column.name].dtype == column.dtype
    }
