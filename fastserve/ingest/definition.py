"""What a view's definition is, as it is recorded, and what of it decides its rows.

Knows nothing of files and of what reads them: servers ask for it, too.

Invariants
1. Two definitions under which rows are the same have one digest, wherever their repo lies.
2. The text of a function is that of when it was first asked for, whatever has become of its file since.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from fastserve.plan.views import ViewPlan
from fastserve.sdk.features import Aggregate

_NO_PART_OF_ROWS = ("ttl_ns", "stream", "created_ns")
_TEXTS: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()


def rows_digest(view: ViewPlan) -> str:
    """Return what two definitions have in common under which a view's rows are the same."""
    facts = {name: fact for name, fact in definition(view).items() if name not in _NO_PART_OF_ROWS}
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def definition(view: ViewPlan) -> dict[str, Any]:
    """Return what is recorded of a view: all that decides its keys and its rows, ready for JSON."""
    written = view.view
    source = written.batch_source
    return {
        "keys": [[field.name, str(field.dtype)] for field in view.key_fields],
        "table": view.table,
        # Not where it is the main one: what was recorded before stores had names stays as it is.
        **({"store": view.store} if view.store else {}),
        "row_format": "packed" if view.packed else "attributes",
        "schema_id": view.layout.schema_id,
        "features": _features(view),
        "source": None
        if source is None
        else _digest([source.name, source.format, *map(_portable, source.paths)]),
        "transformation": _digest([source_text(written.transformation)]),
        "timestamp_field": written.timestamp_field,
        "start_time": None if written.start_time is None else written.start_time.isoformat(),
        "interval_ns": view.interval_ns,
        "horizon_ns": None if view.schema is None else view.schema.horizon_ns,
        "leading_edge": written.leading_edge,
        "ttl_ns": view.ttl_ns,
        "stream": {"source": written.source.name, "alone": source is None} if view.is_streamed else None,
        # Only where there is one: records of before bundles were known stay equal to those of today.
        **({} if written.bundle is None else {"bundle": written.bundle}),
    }


def _features(view: ViewPlan) -> dict[str, str]:
    described: dict[str, str] = {}
    key = view.view.aggregation_secondary_key
    for name, feature in zip(view.view.feature_names, view.view.features, strict=True):
        what = str(view.view.output_type(name))
        if isinstance(feature, Aggregate):
            window = feature.time_window.label
            what = f"{feature.function.label} of {feature.input_column} over {window}: {what}"
            what += "" if feature.tail_hop is None else f", tail hop {feature.tail_hop}"
            what += "" if key is None else f", by {key}"
        described[name] = what
    return described


def _portable(path: str) -> str:
    """Return what of a path is the same on every machine: a repo lies in different folders."""
    return path if "://" in path else path.rsplit("/", 1)[-1]


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def source_text(transformation: str | Callable[..., Any] | None) -> str:
    """Return the text that says what a transformation does, so that a changed one is noticed."""
    if transformation is None or isinstance(transformation, str):
        return transformation or ""
    try:
        text = _TEXTS.get(transformation)
        if text is None:
            text = _TEXTS[transformation] = _text_of(transformation)
    except TypeError:  # it can't be hashed, or not be referred to weakly
        return _text_of(transformation)
    return text


def _text_of(transformation: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(transformation)
    except (OSError, TypeError):
        return getattr(transformation, "__qualname__", type(transformation).__qualname__)
