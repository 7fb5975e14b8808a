"""Loads a feature repo: a folder of Python files that make definitions, and the workspace they belong to.

Every file is run, every definition that it makes is collected, and everything that is wrong is told at once.

Invariants:
1. A `Repo` holds valid definitions only, each under its own name, and everything that they refer to.
2. The same object met in two files is one definition; two objects of one kind and name are an error.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final, TypeVar

from fastserve.config import TOP_LEVEL_KEYS
from fastserve.errors import DefinitionError, DefinitionErrors, Location, shown
from fastserve.sdk.checks import NAME_UNKNOWN, Collector, Definition, collecting, described
from fastserve.sdk.entity import Entity
from fastserve.sdk.failures import described_failure
from fastserve.sdk.modules import RepoModules
from fastserve.sdk.on_demand import OnDemandFeatureView
from fastserve.sdk.reference import FeatureViewReference
from fastserve.sdk.service import FeatureService
from fastserve.sdk.sources import ExternalSource, FileSource, PushSource, Source
from fastserve.sdk.views import FeatureView

SETTINGS_FILE: Final = "fastserve.toml"
WORKSPACE_DEFAULT: Final = "default"
WORKSPACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")  # the first part of a table's name
_SOURCES: Final = (FileSource, PushSource, ExternalSource)
_VIEWS: Final = (FeatureView, OnDemandFeatureView)
_D = TypeVar("_D", bound=Definition)


@dataclass(frozen=True, slots=True)
class Repo:
    """The definitions of one folder, by name, in the order in which they were made."""

    path: Path
    workspace: str
    entities: Mapping[str, Entity]
    sources: Mapping[str, Source]
    views: Mapping[str, FeatureView]
    services: Mapping[str, FeatureService]
    on_demand_views: Mapping[str, OnDemandFeatureView[..., Any]]


def load_repo(path: str | Path) -> Repo:
    """Run all Python files of a folder and return what they define.

    Files and folders whose names begin with ``.`` or ``_`` are not run on their own, neither are tests.

    Raises:
        DefinitionErrors: something in the repo is wrong; lists all of it, with files and lines.
        DefinitionError: there is no such folder.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise DefinitionError(f"feature repo {described(str(path))} (expected a folder, found none)")
    modules = RepoModules(folder)
    with collecting() as collector:
        workspace = _read_workspace(folder, collector)
        definitions = _distinct(_run_all(modules, collector))
        _check_names(definitions, collector)
        _check_tables(definitions, collector)
        _check_all_valid(definitions, collector, folder)
    if collector.errors:
        raise DefinitionErrors([_as_seen_from(error, folder, Path(path)) for error in collector.errors])
    return Repo(
        folder,
        workspace,
        _by_name(definition for definition in definitions if isinstance(definition, Entity)),
        _by_name(definition for definition in definitions if isinstance(definition, _SOURCES)),
        _by_name(definition for definition in definitions if isinstance(definition, FeatureView)),
        _by_name(definition for definition in definitions if isinstance(definition, FeatureService)),
        _by_name(definition for definition in definitions if isinstance(definition, OnDemandFeatureView)),
    )


def _by_name(definitions: Iterable[_D]) -> Mapping[str, _D]:
    return MappingProxyType({definition.name: definition for definition in definitions})


def _read_workspace(folder: Path, collector: Collector) -> str:
    file = folder / SETTINGS_FILE
    if not file.exists():
        return WORKSPACE_DEFAULT
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        line = re.search(r"at line (\d+)", str(failure))
        place = Location(str(file), int(line[1]) if line else 1)
        collector.fault(f"not readable as TOML: {failure}", place)
        return WORKSPACE_DEFAULT
    for key in (key for key in document if key not in TOP_LEVEL_KEYS):
        collector.fault(_unknown_key(key), _place_of(key, text, file))
    workspace: object = document.get("workspace", WORKSPACE_DEFAULT)
    if isinstance(workspace, str) and WORKSPACE.fullmatch(workspace):
        return workspace
    expected = "a letter, then letters, digits and _ . -, at most 100 characters"
    message = f"workspace (expected {expected}, got {described(workspace)})"
    collector.fault(message, _place_of("workspace", text, file))
    return WORKSPACE_DEFAULT


def _unknown_key(key: str) -> str:
    """Return what is wrong with a key that nobody reads; a misspelled ``workspace`` means another one."""
    meant = difflib.get_close_matches(key.lower(), TOP_LEVEL_KEYS, 1)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return f"{shown(key)} (expected one of {', '.join(TOP_LEVEL_KEYS)}{hint})"


def _place_of(key: str, text: str, file: Path) -> Location:
    """Return the line that a top-level key of a TOML file begins."""
    found = re.search(rf"""^[ \t]*\[*[ \t]*["']?{re.escape(key)}\b""", text, re.MULTILINE)
    return Location(str(file), text.count("\n", 0, found.start()) + 1 if found else 1)


def _run_all(modules: RepoModules, collector: Collector) -> Iterator[Definition]:
    """Run the files; yield what they made, what they took from elsewhere, and what these refer to."""
    run: list[ModuleType] = []
    told: set[int] = set()
    for file in modules.misnamed():
        message = f"file name (expected no dot before .py nor in a folder's name, got {described(file.name)})"
        collector.fault(message, Location(str(file), 1))
    with modules.importable():
        for name in modules.names():
            module = modules.run(name)
            if module is not None:
                run.append(module)
            elif id(modules.failures[name]) not in told:
                told.add(id(modules.failures[name]))
                failure = described_failure(modules.failures[name], modules.folder, modules.file(name))
                collector.errors.append(failure)
    for definition in collector.definitions:
        yield from _with_parts(definition)
    for module in run:
        for value in list(vars(module).values()):
            if isinstance(value, Definition):
                yield from _with_parts(value)


def _with_parts(definition: Definition) -> Iterator[Definition]:
    """Yield what a definition refers to, then the definition itself."""
    if isinstance(definition, FeatureService):
        for reference in definition.references:
            yield from _with_parts(reference.view)
        for computed in definition.on_demand_references:
            yield from _with_parts(computed.view)
    elif isinstance(definition, OnDemandFeatureView):
        for view in (*definition.views_below, definition):
            for source in view.sources:
                if isinstance(source, FeatureViewReference):
                    yield from _with_parts(source.view)
            yield view
        return
    elif isinstance(definition, FeatureView):
        yield from definition.entities
        if definition.has_source:
            yield from _with_parts(definition.source)
    elif isinstance(definition, PushSource) and definition.batch_source is not None:
        yield definition.batch_source
    yield definition


def _distinct(definitions: Iterable[Definition]) -> list[Definition]:
    return list({id(definition): definition for definition in definitions}.values())


def _check_all_valid(definitions: Sequence[Definition], collector: Collector, folder: Path) -> None:
    """Report what nobody has told: an empty repo, an invalid definition of an earlier load."""
    if collector.errors:
        return
    if not definitions:
        message = "no definition found (expected a FeatureView or another in a Python file, got none)"
        collector.fault(message, Location(str(folder), 1))
    for definition in definitions:
        if not definition.valid:  # a library's, whose faults an earlier load told
            message = "invalid since an earlier load (expected its faults mended and a new process)"
            collector.fault(f"{definition!r}: {message}", definition.location)


def _check_names(definitions: Iterable[Definition], collector: Collector) -> None:
    first: dict[tuple[str, str], Definition] = {}
    for definition in definitions:
        kind = "source" if isinstance(definition, _SOURCES) else type(definition).__name__
        rival = (
            "view" if isinstance(definition, _VIEWS) else kind
        )  # a view's name means one view, of any kind
        other = first.setdefault((rival, definition.name), definition)
        if other is not definition and definition.name != NAME_UNKNOWN:
            message = f"the name is taken (expected another, got that of {other.location})"
            collector.fault(f"{kind} {definition.name!r}: {message}", definition.location)


def _check_tables(definitions: Iterable[Definition], collector: Collector) -> None:
    """Report packed views that would write their rows over each other's."""
    first: dict[str, FeatureView] = {}
    for view in definitions:
        if not isinstance(view, FeatureView) or view.table is None or view.row_format != "packed":
            continue
        other = first.setdefault(view.table, view)
        if other is not view:
            message = (
                f"FeatureView {view.name!r}: table (expected one of its own, "
                f"got {described(view.table)}, which {other.name!r} writes to at {other.location})"
            )
            collector.fault(message, view.location)


def _as_seen_from(error: DefinitionError, folder: Path, path: Path) -> DefinitionError:
    """Write paths as the caller named the repo: they can be clicked and don't name the machine."""
    message = error.message.replace(f"{folder}/", f"{path}/" if str(path) != "." else "")
    if error.location is None or not Path(error.location.file).is_relative_to(folder):
        return DefinitionError(message, error.location)
    shown_file = path / Path(error.location.file).relative_to(folder)
    return DefinitionError(message, Location(str(shown_file), error.location.line))
