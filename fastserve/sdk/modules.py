"""Imports the Python files of a feature repo, each once, under names of this load's own.

A repo's files may import each other as siblings (``import entities``), relatively (``from .entities import
user``) and, when the folder is a package, by its name (``from flights.entities import carrier``). All three
give the same module here: every file has one canonical name below a prefix made for the load, and what an
author writes is an alias of it. With the folder on ``sys.path`` instead, one file imported in two ways would
run twice and define everything twice. Knows nothing of definitions.

Invariants:
1. A file runs at most once a load, also when it fails: who imports it later gets the first failure.
2. After the load ``sys.meta_path`` is as before, and ``sys.modules`` too, except for the canonical names,
   which stay so that functions of the repo can be looked up by them; they differ between loads.
3. Nothing is written beside the author's files, and no bytecode of an earlier load is believed.
"""

from __future__ import annotations

import importlib
import sys
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from io import BytesIO
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

from fastserve.errors import InvariantError

PREFIX: Final = "_fastserve_repo_"
_numbers: Final = count(1)
# What stands in a repo's folder for other programs: their files are run by those.
SKIPPED_FOLDERS: Final = ("tests", "test", "node_modules", "site-packages")
SKIPPED_FILES: Final = ("conftest.py", "setup.py")


class RepoModules:
    """The files of one repo folder, to be imported inside ``with modules.importable():``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"{PREFIX}{next(_numbers)}"
        self.failures: dict[str, BaseException] = {}
        self.aliases: set[str] = set()
        self._is_package = (folder / "__init__.py").is_file()

    def names(self) -> list[str]:
        """Return the canonical names of all files that are run on their own, in the order of their paths."""
        paths = (self._parts(file) for file in python_files(self.folder))
        return [".".join([self.prefix, *parts]) for parts in paths if not _dotted(parts)]

    def misnamed(self) -> list[Path]:
        """Return the files that have no name as a module, because of a dot in theirs or in a folder's."""
        return [file for file in python_files(self.folder) if _dotted(self._parts(file))]

    def _parts(self, file: Path) -> list[str]:
        parts = list(file.relative_to(self.folder).with_suffix("").parts)
        return parts[:-1] if parts[-1] == "__init__" else parts

    def file(self, name: str) -> Path:
        """Return the file of a canonical name."""
        return self.locate(name[len(self.prefix) + 1 :]) or self.folder

    def run(self, name: str) -> ModuleType | None:
        """Import a file; None when it failed, and ``failures[name]`` says how."""
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - an author's file may raise anything
            self.failures.setdefault(name, first_failure(failure))
            return None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let the repo's files be imported by every name that an author may use, inside the block."""
        finder = _RepoFinder(self)
        hidden = self._hide_namesakes()
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            for alias in self.aliases:
                sys.modules.pop(alias, None)
            sys.modules.update(hidden)

    def _hide_namesakes(self) -> dict[str, ModuleType]:
        """Take out of ``sys.modules`` what the process has imported under a name the repo uses."""
        taken = [name for name in sys.modules if self.canonical(name) not in {None, name}]
        return {name: sys.modules.pop(name) for name in taken}

    def canonical(self, name: str) -> str | None:
        """Return the canonical name of what is imported as ``name``, None when it's none of the repo's."""
        top, dot, rest = name.partition(".")
        if top == self.prefix:
            return name
        # A repo's random.py must not become the random of every library imported from here on.
        if top in sys.stdlib_module_names or top == "fastserve":
            return None
        if self._is_package and top == self.folder.name:
            return self.prefix + dot + rest
        return None if self.locate(top) is None else f"{self.prefix}.{name}"

    def locate(self, relative_name: str) -> Path | None:
        """Return the file, or the folder without ``__init__.py``, of a dotted name within the repo."""
        if not relative_name:
            return self.folder / "__init__.py" if self._is_package else self.folder
        base = self.folder.joinpath(*relative_name.split("."))
        for file in (base / "__init__.py", base.with_name(base.name + ".py")):
            if file.is_file():
                return file
        return base if base.is_dir() and any(base.rglob("*.py")) else None


class AlreadyFailedError(ImportError):
    """A file of the repo is imported again after it failed; ``failure`` is how."""

    def __init__(self, name: str, failure: BaseException) -> None:
        super().__init__(f"{name} failed before: {failure!r}", name=name)
        self.failure = failure


def first_failure(failure: BaseException) -> BaseException:
    """Return what made an import fail in the first place."""
    return failure.failure if isinstance(failure, AlreadyFailedError) else failure


def source_text(data: bytes, file: str) -> str:
    """Return a file's text in the encoding that it declares, UTF-8 by default.

    Raises:
        SyntaxError: it isn't in that encoding. (`compile` would let other bytes pass in comments.)
    """
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    except SyntaxError as failure:  # what it declares is unknown, or the declaration's lines are no UTF-8
        encoding = "utf-8"
        if _decodes(data, encoding):
            raise SyntaxError(failure.msg, (file, 1, None, None)) from None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        message = f"not readable as text (expected {encoding}, got the byte 0x{data[failure.start]:02x})"
        raise SyntaxError(message, (file, line, None, None)) from None


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder that belong to the repo, a package before what it holds."""
    entries = sorted(folder.iterdir(), key=lambda entry: (entry.name != "__init__.py", entry.name))
    for entry in entries:
        if entry.is_dir():
            if _is_repo_folder(entry):
                yield from python_files(entry)
        elif _is_repo_file(entry.name):
            yield entry


def _is_repo_folder(folder: Path) -> bool:
    name = folder.name
    return not (
        name.startswith((".", "_"))
        or name in SKIPPED_FOLDERS
        or folder.is_symlink()  # may lead back to where we are
        or (folder / "pyvenv.cfg").exists()
    )


def _is_repo_file(name: str) -> bool:
    if not name.endswith(".py") or name in SKIPPED_FILES:
        return False
    return name == "__init__.py" or not (name.startswith((".", "_", "test_")) or name.endswith("_test.py"))


def _dotted(parts: list[str]) -> bool:
    return any("." in part for part in parts)


class _RepoFinder(MetaPathFinder):
    def __init__(self, modules: RepoModules) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        modules = self._modules
        canonical = modules.canonical(fullname)
        if canonical is None:
            return None
        file = modules.locate(canonical[len(modules.prefix) + 1 :])
        if file is None:
            return None
        if canonical != fullname:
            modules.aliases.add(fullname)
            return ModuleSpec(fullname, _AliasLoader(canonical), origin=str(file))
        if canonical in modules.failures:
            raise AlreadyFailedError(canonical, modules.failures[canonical])
        return _spec_of(canonical, file, modules)


def _spec_of(name: str, file: Path, modules: RepoModules) -> ModuleSpec:
    if file.is_dir():
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(file)]
        return spec
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    loader = _RepoLoader(name, str(file), modules)
    found = spec_from_file_location(name, file, loader=loader, submodule_search_locations=folders)
    if found is None:
        raise InvariantError(f"no import specification for {file}")
    return found


class _RepoLoader(SourceFileLoader):
    """Runs a file from its source, and remembers how it failed."""

    def __init__(self, name: str, path: str, modules: RepoModules) -> None:
        super().__init__(name, path)
        self._modules = modules

    def get_code(self, fullname: str) -> CodeType:
        # SourceFileLoader's own believes cached bytecode of the same second and size, and writes it.
        source = source_text(self.get_data(self.path), self.path)
        code: CodeType = self.source_to_code(source, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except (Exception, SystemExit) as failure:
            self._modules.failures[self.name] = first_failure(failure)
            raise


class _AliasLoader(Loader):
    """Gives the module of the canonical name to whoever imports it by another."""

    def __init__(self, canonical: str) -> None:
        self._canonical = canonical
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._canonical)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import machinery has put the alias's there
