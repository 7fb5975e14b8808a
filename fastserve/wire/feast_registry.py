"""Feast's registry file: what of it serving needs. A serialized ``feast.core.Registry``.

The schemas are those of `protos/feast/core/` of Feast 0.67: entities, feature views, stream feature views
and feature services of one project. Sources, transformations, permissions and what was materialized when are
passed over. Of on-demand views only the names are read, for their code is pickled Python that needs Feast;
so are those of label views, which aren't served.

Invariants
1. Nothing is guessed: a value type that isn't known keeps its number as its name.
2. Bytes that are no registry raise `ProtobufError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from fastserve.tiles.windows import SECOND_NS
from fastserve.wire.protobuf import ProtobufError, Value, fields, int64, number, payload, text

DUMMY_ENTITY = "__dummy"
"""The entity of views without entities."""

VALUE_TYPES: Mapping[int, str] = {
    0: "INVALID",
    1: "BYTES",
    2: "STRING",
    3: "INT32",
    4: "INT64",
    5: "DOUBLE",
    6: "FLOAT",
    7: "BOOL",
    8: "UNIX_TIMESTAMP",
    11: "BYTES_LIST",
    12: "STRING_LIST",
    13: "INT32_LIST",
    14: "INT64_LIST",
    15: "DOUBLE_LIST",
    16: "FLOAT_LIST",
    17: "BOOL_LIST",
    18: "UNIX_TIMESTAMP_LIST",
    19: "NULL",
    20: "MAP",
    21: "MAP_LIST",
    22: "BYTES_SET",
    23: "STRING_SET",
    24: "INT32_SET",
    25: "INT64_SET",
    26: "DOUBLE_SET",
    27: "FLOAT_SET",
    28: "BOOL_SET",
    29: "UNIX_TIMESTAMP_SET",
    32: "JSON",
    33: "JSON_LIST",
    34: "STRUCT",
    35: "STRUCT_LIST",
    36: "UUID",
    37: "TIME_UUID",
    38: "UUID_LIST",
    39: "TIME_UUID_LIST",
    40: "UUID_SET",
    41: "TIME_UUID_SET",
    42: "VALUE_LIST",
    43: "VALUE_SET",
    44: "DECIMAL",
    45: "DECIMAL_LIST",
    46: "DECIMAL_SET",
    47: "SCALAR_MAP",
    48: "ZONED_TIMESTAMP",
}


@dataclass(frozen=True, slots=True)
class FeastField:
    """A feature or a join key of a view: its name, its value type's name, what is said of it."""

    name: str
    value_type: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeastEntity:
    """An entity: what requests may call its join key, too."""

    name: str
    join_key: str
    value_type: str


@dataclass(frozen=True, slots=True)
class FeastView:
    """A feature view, of batch or stream. ``ttl_ns`` is 0 where rows don't expire.

    ``join_keys`` are empty where an older Feast wrote the registry: then the entities name them.
    """

    name: str
    project: str
    entities: tuple[str, ...]
    features: tuple[FeastField, ...]
    join_keys: tuple[FeastField, ...]
    ttl_ns: int
    online: bool
    disabled: bool
    version: int
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True, slots=True)
class FeastProjection:
    """What a service reads of one view. ``join_key_map`` leads from the view's names to the request's."""

    view: str
    alias: str
    features: tuple[str, ...]
    join_key_map: Mapping[str, str]
    version: int | None


@dataclass(frozen=True, slots=True)
class FeastService:
    """A feature service."""

    name: str
    project: str
    projections: tuple[FeastProjection, ...]
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True, slots=True)
class FeastRegistry:
    """The definitions of one project."""

    entities: tuple[FeastEntity, ...]
    views: tuple[FeastView, ...]
    services: tuple[FeastService, ...]
    on_demand_views: tuple[str, ...]
    projects: tuple[str, ...]
    """All projects that the file has definitions of."""
    label_views: tuple[str, ...] = ()


def read_registry(data: bytes, project: str) -> FeastRegistry:
    """Return a project's definitions.

    Raises:
        ProtobufError: it isn't a registry.
    """
    registry = _message(data)
    views = [*_all(registry, 6, _batch_view), *_all(registry, 14, _stream_view)]
    services = _all(registry, 7, _service)
    entities = _all(registry, 1, _entity)
    on_demand = _all(registry, 8, _named)
    labels = _all(registry, 19, _named)
    every = [
        *(view.project for view in views),
        *(service.project for service in services),
        *(of for of, _ in entities),
        *(of for of, _ in (*on_demand, *labels)),
    ]
    return FeastRegistry(
        tuple(entity for of, entity in entities if of == project),
        tuple(view for view in views if view.project == project),
        tuple(service for service in services if service.project == project),
        tuple(name for of, name in on_demand if of == project),
        tuple(dict.fromkeys(every)),
        tuple(name for of, name in labels if of == project),
    )


# --- messages --------------------------------------------------------------------------------------------

_Message = Mapping[int, list[Value]]
_T = TypeVar("_T")


def _message(value: Value) -> _Message:
    found: dict[int, list[Value]] = {}
    for which, _, part in fields(payload(value)):
        found.setdefault(which, []).append(part)
    return found


def _all(message: _Message, which: int, read: Callable[[Value], _T]) -> list[_T]:
    return [read(part) for part in message.get(which, ())]


def _texts(message: _Message, which: int) -> tuple[str, ...]:
    return tuple(text(part) for part in message.get(which, ()))


def _text(message: _Message, which: int) -> str:
    parts = message.get(which)
    return text(parts[-1]) if parts else ""


def _number(message: _Message, which: int) -> int:
    parts = message.get(which)
    return int64(number(parts[-1])) if parts else 0


def _part(message: _Message, which: int) -> _Message:
    parts = message.get(which)
    return _message(b"".join(payload(part) for part in parts)) if parts else {}


def _text_map(message: _Message, which: int) -> dict[str, str]:
    entries: Iterable[_Message] = (_message(part) for part in message.get(which, ()))
    return {_text(entry, 1): _text(entry, 2) for entry in entries}


def _value_type(message: _Message, which: int) -> str:
    found = _number(message, which)
    return VALUE_TYPES.get(found, str(found))


def _named(value: Value) -> tuple[str, str]:
    spec = _part(_message(value), 1)
    return _text(spec, 2), _text(spec, 1)


def _entity(value: Value) -> tuple[str, FeastEntity]:
    spec = _part(_message(value), 1)
    name = _text(spec, 1)
    return _text(spec, 9), FeastEntity(name, _text(spec, 4) or name, _value_type(spec, 2))


def _field(value: Value) -> FeastField:
    spec = _message(value)
    return FeastField(_text(spec, 1), _value_type(spec, 2), _text(spec, 4), _text_map(spec, 3))


class _ViewFields(NamedTuple):
    """The numbers of the fields that the two kinds of views have, and number otherwise."""

    tags: int
    description: int
    owner: int
    ttl: int
    online: int
    join_keys: int
    disabled: int


_BATCH_FIELDS = _ViewFields(tags=5, description=10, owner=11, ttl=6, online=8, join_keys=12, disabled=20)
_STREAM_FIELDS = _ViewFields(tags=7, description=6, owner=8, ttl=9, online=12, join_keys=5, disabled=23)


def _view(value: Value, numbers: _ViewFields) -> FeastView:
    message = _message(value)
    spec, meta = _part(message, 1), _part(message, 2)
    return FeastView(
        name=_text(spec, 1),
        project=_text(spec, 2),
        entities=_texts(spec, 3),
        features=tuple(_all(spec, 4, _field)),
        join_keys=tuple(_all(spec, numbers.join_keys, _field)),
        ttl_ns=_duration_ns(spec, numbers.ttl),
        online=_number(spec, numbers.online) != 0,
        disabled=_number(spec, numbers.disabled) != 0,
        version=_number(meta, 4),
        description=_text(spec, numbers.description),
        tags=_text_map(spec, numbers.tags),
        owner=_text(spec, numbers.owner),
    )


def _batch_view(value: Value) -> FeastView:
    return _view(value, _BATCH_FIELDS)


def _stream_view(value: Value) -> FeastView:
    return _view(value, _STREAM_FIELDS)


def _duration_ns(message: _Message, which: int) -> int:
    duration = _part(message, which)
    found = _number(duration, 1) * SECOND_NS + _number(duration, 2)
    if found < 0:
        raise ProtobufError(f"expected a ttl of 0 or more, got {found} ns")
    return found


def _service(value: Value) -> FeastService:
    spec = _part(_message(value), 1)
    return FeastService(
        name=_text(spec, 1),
        project=_text(spec, 2),
        projections=tuple(_all(spec, 3, _projection)),
        description=_text(spec, 5),
        tags=_text_map(spec, 4),
        owner=_text(spec, 6),
    )


def _projection(value: Value) -> FeastProjection:
    message = _message(value)
    return FeastProjection(
        view=_text(message, 1),
        alias=_text(message, 3),
        features=tuple(each.name for each in _all(message, 2, _field)),
        join_key_map=_text_map(message, 4),
        version=_number(message, 10) if 10 in message else None,
    )
