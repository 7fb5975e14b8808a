"""A Feast project's definitions as a feature repo of ours: Python text, and what was left out and why.

Pure: registry in, text out. What it writes is read by people, who go on from there.

Invariants
1. What can't be served as Feast serves it is left out and told, never approximated.
2. The text holds no name twice, and no name that Python or fastserve uses.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fastserve.cli.python_text import (
    WIDTH,
    call_text,
    described_by,
    duration_text,
    listed,
    mapping,
    quoted,
)
from fastserve.sdk.checks import DURATION_MAX, FREE_NAME, IDENTIFIER, NAME_CHARS_MAX
from fastserve.sdk.durations import format_duration
from fastserve.wire.feast_key import DUMMY_JOIN_KEY
from fastserve.wire.feast_registry import (
    DUMMY_ENTITY,
    FeastEntity,
    FeastRegistry,
    FeastService,
    FeastView,
)

JOIN_KEY_TYPES: Final = {
    "STRING": "String",
    "INT64": "Int64",
    "INT32": "Int64",
    "UNIX_TIMESTAMP": "Timestamp",
    "BYTES": "String",
}
PLAIN_KEY_TYPES: Final = ("STRING", "INT64", "UNIX_TIMESTAMP")
"""What a format needn't name, for our type says it."""

FEATURE_TYPES: Final = {
    "BYTES": "String",
    "STRING": "String",
    "INT32": "Int64",
    "INT64": "Int64",
    "DOUBLE": "Float64",
    "FLOAT": "Float32",
    "BOOL": "Bool",
    "UNIX_TIMESTAMP": "Timestamp",
    "ZONED_TIMESTAMP": "Timestamp",
    "JSON": "String",
    "UUID": "String",
    "TIME_UUID": "String",
    "DECIMAL": "String",
}
"""Beside these their lists and sets are arrays; anything else is JSON text."""

_TTL_MAX_NS: Final = DURATION_MAX // timedelta(microseconds=1) * 1_000

_USED_NAMES: Final = (
    *("Array", "Attribute", "Entity", "ExternalSource", "FeastFormat", "FeatureService", "FeatureView"),
    *("Bool", "Field", "Float32", "Float64", "Int64", "String", "Timestamp", "feast", "timedelta"),
)


@dataclass(frozen=True, slots=True)
class FeastTables:
    """What a project's configuration says of its tables."""

    project: str
    key_version: int = 3
    name_template: str = "{project}.{table_name}"
    versioned: bool = False

    def name(self, view: FeastView) -> str:
        """Return the name of a view's table."""
        table = f"{view.name}_v{view.version}" if self.versioned and view.version > 0 else view.name
        return self.name_template.format(project=self.project, table_name=table)


@dataclass(slots=True)
class FeatureRepo:
    """The text of ``features.py``, and what of the project it doesn't hold."""

    text: str = ""
    views: int = 0
    services: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    feast_type: str

    @property
    def dtype(self) -> str:
        return JOIN_KEY_TYPES[self.feast_type]


class _Unfit(Exception):
    """Why a view or a service is left out."""


def write_repo(registry: FeastRegistry, tables: FeastTables, origin: str) -> FeatureRepo:
    """Return the project's definitions; ``origin`` says in the text where they come from."""
    return _Writer(registry, tables).write(origin)


class _Writer:
    def __init__(self, registry: FeastRegistry, tables: FeastTables) -> None:
        self._registry = registry
        self._tables = tables
        self._entities = {entity.name: entity for entity in registry.entities}
        self._entities.setdefault(DUMMY_ENTITY, FeastEntity(DUMMY_ENTITY, DUMMY_JOIN_KEY, "STRING"))
        self._variables = {*keyword.kwlist, *keyword.softkwlist, *_USED_NAMES}
        self._entity_names: set[str] = set()
        self._view_names: set[str] = set()
        self._entity_variables: dict[tuple[str, _Key], str] = {}
        self._views: dict[str, tuple[str, FeastView]] = {}
        self._imports = {"Entity", "ExternalSource", "FeastFormat", "FeatureView", "Field"}
        self._blocks: list[str] = []
        self._repo = FeatureRepo()

    def write(self, origin: str) -> FeatureRepo:
        repo = self._repo
        for view in self._registry.views:
            try:
                self._add_view(view)
                repo.views += 1
            except _Unfit as why:
                repo.left_out.append(f"view {view.name}: {why}")
        for service in self._registry.services:
            try:
                self._add_service(service)
                repo.services += 1
            except _Unfit as why:
                repo.left_out.append(f"service {service.name}: {why}")
        repo.left_out += [
            f"on-demand view {name}: its code is for Feast; write it as an on-demand view of fastserve's"
            for name in self._registry.on_demand_views
        ]
        repo.left_out += [f"label view {name}: labels aren't served" for name in self._registry.label_views]
        repo.text = self._head(origin) + "\n\n".join(self._blocks) + "\n"
        return repo

    def _head(self, origin: str) -> str:
        names = ",\n    ".join(sorted(self._imports))
        origin = origin.replace("\\", "/").replace('"', "'")  # it stands in a docstring
        times = "from datetime import timedelta\n\n" if self._needs_time else ""
        return (
            f'"""{origin}\n\nFeast\'s jobs go on writing the rows; they are read where they lie.\n"""\n\n'
            f"{times}from fastserve import (\n    {names},\n)\n\n"
            'feast = ExternalSource("feast", description="Tables that Feast\'s jobs write")\n\n'
        )

    @property
    def _needs_time(self) -> bool:
        return any(view.ttl_ns for _, view in self._views.values())

    # --- views -------------------------------------------------------------------------------------------

    def _add_view(self, view: FeastView) -> None:
        if not view.online:
            raise _Unfit("it isn't online")
        if view.disabled:
            raise _Unfit("it is disabled")
        if not view.features:
            raise _Unfit("it has no features")
        if view.ttl_ns > _TTL_MAX_NS:
            raise _Unfit(f"its ttl is longer than {format_duration(DURATION_MAX)}")
        keys = self._keys(view)
        names = _feature_names(view, {key.name for _, key in keys})
        name = self._name(view.name, self._view_names)
        entities = [self._entity(entity, key) for entity, key in keys]
        variable = self._variable(name)
        self._views[view.name] = (variable, view)
        self._blocks.append(
            call_text(
                f"{variable} = FeatureView",
                [
                    quoted(name),
                    f"entities={listed(entities)}",
                    "source=feast",
                    f"features=[\n{self._attributes(view, names)}    ]",
                    *([f"ttl={duration_text(view.ttl_ns)}"] if view.ttl_ns else []),
                    f"table={quoted(self._tables.name(view))}",
                    f"row_format={self._format(view, name, keys, names)}",
                    *described_by(view.description, view.tags, view.owner),
                ],
            )
        )

    def _keys(self, view: FeastView) -> list[tuple[str, _Key]]:
        types = {key.name: key.value_type for key in view.join_keys}
        keys: list[tuple[str, _Key]] = []
        for name in view.entities:
            entity = self._entities.get(name)
            if entity is None:
                raise _Unfit(f"the registry lacks its entity {name!r}")
            kind = types.get(entity.join_key, entity.value_type)
            if kind not in JOIN_KEY_TYPES:
                raise _Unfit(f"Feast makes no keys of its join key {entity.join_key!r} of type {kind}")
            if not _is_identifier(entity.join_key):
                raise _Unfit(f"its join key {entity.join_key!r} isn't a name of letters, digits and _")
            keys.append((name, _Key(entity.join_key, kind)))
        if not keys:
            raise _Unfit("it has no entities")
        return keys

    def _entity(self, name: str, key: _Key) -> str:
        """Return the variable of an entity; one whose join key has two types is written twice."""
        plain = _Key(key.name, "STRING" if key.dtype == "String" else key.feast_type)
        if key.feast_type == "INT32":
            plain = _Key(key.name, "INT64")
        known = self._entity_variables.get((name, plain))
        if known is not None:
            return known
        own = name if len(name) <= NAME_CHARS_MAX and FREE_NAME.fullmatch(name) else _identifier(name)
        own = own.lstrip("_") or "entity"
        own = self._name(own, self._entity_names, free=True)
        variable = self._entity_variables[name, plain] = self._variable(_identifier(own))
        self._imports.add(key.dtype)
        join_key = f"Field({quoted(key.name)}, {key.dtype})"
        self._blocks.append(f"{variable} = Entity({quoted(own)}, join_keys={join_key})")
        return variable

    def _attributes(self, view: FeastView, names: Mapping[str, str]) -> str:
        self._imports.add("Attribute")
        lines = []
        for feature in view.features:
            dtype = self._dtype(feature.value_type)
            more = "".join(f", {part}" for part in described_by(feature.description, feature.tags))
            lines.append(f"        Attribute({quoted(names[feature.name])}, {dtype}{more}),\n")
        return "".join(lines)

    def _dtype(self, feast_type: str) -> str:
        element = feast_type.removesuffix("_LIST").removesuffix("_SET")
        dtype = FEATURE_TYPES.get(element, "String")
        self._imports.add(dtype)
        if element == feast_type or element not in FEATURE_TYPES:
            return dtype
        self._imports.add("Array")
        return f"Array({dtype})"

    def _format(
        self, view: FeastView, name: str, keys: Sequence[tuple[str, _Key]], names: Mapping[str, str]
    ) -> str:
        types = {key.name: key.feast_type for _, key in keys if key.feast_type not in PLAIN_KEY_TYPES}
        renamed = {own: feast for feast, own in names.items() if own != feast}
        arguments = [
            *([f"view={quoted(view.name)}"] if name != view.name else []),
            f"key_version={self._tables.key_version}",
            *([f"key_types={mapping(types)}"] if types else []),
            *([f"names={mapping(renamed)}"] if renamed else []),
        ]
        return f"FeastFormat({', '.join(arguments)})"

    # --- services ----------------------------------------------------------------------------------------

    def _add_service(self, service: FeastService) -> None:
        if not (FREE_NAME.fullmatch(service.name) and len(service.name) <= NAME_CHARS_MAX):
            raise _Unfit("its name isn't one of a letter, then letters, digits and _ . : -")
        parts: list[str] = []
        seen: set[str] = set()
        for projection in service.projections:
            known = self._views.get(projection.view)
            if known is None:
                what = (
                    "an on-demand view" if projection.view in self._registry.on_demand_views else "left out"
                )
                raise _Unfit(f"its view {projection.view!r} is {what}")
            if projection.version is not None:
                raise _Unfit(f"it reads version {projection.version} of view {projection.view!r}")
            variable, view = known
            name = projection.alias or view.name
            if name in seen:
                raise _Unfit(f"it reads view {name!r} twice under one name")
            seen.add(name)
            parts.append(self._projection(variable, view, projection.features, projection.alias))
            mapped = {key: to for key, to in projection.join_key_map.items() if key != to}
            if not all(_is_identifier(to) for to in mapped.values()):
                raise _Unfit(f"its view {name!r} has a join key that isn't a name of letters, digits and _")
            if mapped:
                parts[-1] += f".with_join_key_map({mapping(mapped)})"
        if not parts:
            raise _Unfit("it has no features")
        self._imports.add("FeatureService")
        features = f"features={listed(parts)}"
        if len(features) > WIDTH - 10:
            features = "features=[\n" + "".join(f"        {part},\n" for part in parts) + "    ]"
        described = described_by(service.description, service.tags, service.owner)
        self._blocks.append(call_text("FeatureService", [quoted(service.name), features, *described]))

    def _projection(self, variable: str, view: FeastView, features: Sequence[str], alias: str) -> str:
        keys = {key.name for _, key in self._keys(view)}
        names = _feature_names(view, keys)
        lacking = [feature for feature in features if feature not in names]
        if lacking:
            raise _Unfit(f"view {view.name!r} has no feature {lacking[0]!r} any more")
        text = variable
        if tuple(features) != tuple(feature.name for feature in view.features):
            if not features:
                raise _Unfit(f"it reads no feature of view {view.name!r}")
            text += f"[{listed([quoted(names[feature]) for feature in features])}]"
        if alias and alias != view.name:
            if not _is_identifier(alias):
                raise _Unfit(f"the name {alias!r} isn't one of letters, digits and _")
            text += f".with_name({quoted(alias)})"
        return text

    # --- names -------------------------------------------------------------------------------------------

    def _name(self, name: str, taken: set[str], *, free: bool = False) -> str:
        found = name if free or _is_identifier(name) else _identifier(name)
        number = 2
        while found in taken:
            found = f"{name if free else _identifier(name)}_{number}"
            number += 1
        taken.add(found)
        return found

    def _variable(self, name: str) -> str:
        found, number = name, 2
        while found in self._variables:
            found = f"{name}_{number}"
            number += 1
        self._variables.add(found)
        return found


def _feature_names(view: FeastView, keys: set[str]) -> dict[str, str]:
    """Return our name of each of a view's features, by Feast's."""
    names: dict[str, str] = {}
    for feature in view.features:
        name = feature.name if _is_identifier(feature.name) else _identifier(feature.name)
        if name in keys or name in names.values():
            raise _Unfit(f"its feature {feature.name!r} has the name of another or of a join key")
        names[feature.name] = name
    return names


def _is_identifier(name: str) -> bool:
    return len(name) <= NAME_CHARS_MAX and IDENTIFIER.fullmatch(name) is not None


def _identifier(name: str) -> str:
    """Return a name of letters, digits and _ that looks like another one."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)[: NAME_CHARS_MAX - 10]
    return found if found[:1].isalpha() or found[:1] == "_" else f"_{found}"
