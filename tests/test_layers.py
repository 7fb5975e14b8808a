"""The table of layers, held against every import that stands in the package.

Imports inside functions and under TYPE_CHECKING count as well: a room that only names the types of another
one knows it all the same. Nor does a pure room ask ``datetime`` what time it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "fastserve"

# A layer imports itself and what stands before it.
LAYERS = (
    "compiled",
    "errors",
    "setting_kinds",
    "config",
    "sdk",
    "tiles",
    "wire",
    "plan",
    "serving",
    "api",
    "store",
    "ingest",
    "server",
    "cli",
)
PURE = frozenset({"sdk", "tiles", "wire", "plan", "serving", "api"})

TIMELESS = PURE | {"errors", "setting_kinds", "config"}

# What a pure layer must not touch: the clock, chance, the machine, other threads, a loop.
IMPURE = frozenset(
    {
        "asyncio",
        "logging",
        "multiprocessing",
        "os",
        "random",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
    }
    | {"ssl", "subprocess", "threading", "time", "uuid", "uvloop"}
)
# Beyond that, what keeps importing definitions light, and each room to its own tools.
BARRED = {
    "compiled": IMPURE | {"numpy"},
    "errors": IMPURE | {"numpy"},
    "setting_kinds": IMPURE | {"numpy"},
    "config": IMPURE | {"numpy"},
    "sdk": IMPURE | {"numpy", "uvloop", "httptools", "duckdb", "pyarrow", "orjson"},
    "tiles": IMPURE | {"httptools", "duckdb", "pyarrow"},
    "wire": IMPURE | {"duckdb", "pyarrow", "aiobotocore", "botocore"},
    "plan": IMPURE | {"duckdb", "pyarrow", "aiobotocore", "botocore"},
    "serving": IMPURE | {"duckdb", "pyarrow", "aiobotocore", "botocore"},
    "api": IMPURE | {"duckdb", "pyarrow", "aiobotocore", "botocore"},
}
# What a room may have of a barred module, each with its reason.
EXCEPTIONS = {
    # A transformation's annotations name Arrow tables; nothing of Arrow is imported when definitions are.
    ("sdk/views.py", "pyarrow"),
    # Authors try views that take columns without a server; loading definitions doesn't import it.
    ("sdk/on_demand_columns.py", "numpy"),
}
CLOCKS = frozenset({"now", "utcnow", "today"})


class Import(NamedTuple):
    file: str  # relative to the package
    line: int
    module: str  # absolute, dotted

    def __str__(self) -> str:
        return f"{PACKAGE}/{self.file}:{self.line} imports {self.module}"


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Yield what a file imports, relative imports resolved, ``from a import b`` as ``a.b``."""
    package = (PACKAGE, *Path(file).parent.parts)
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from (Import(file, node.lineno, f"{module}.{name.name}") for name in node.names)


def layer_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def complaint(found: Import) -> str | None:
    """Return what is wrong with an import, or None."""
    layer = layer_of(found.file)
    top, *rest = found.module.split(".")
    if top == PACKAGE:
        return upward(found, layer, rest[0] if rest else "")
    if top in BARRED.get(layer, frozenset()) and (found.file, top) not in EXCEPTIONS:
        return f"{found}, which {layer} must not touch"
    return None


def upward(found: Import, layer: str, target: str) -> str | None:
    if layer == "__init__":  # the public names of the SDK
        return None if target in {"errors", "sdk"} else f"{found}: the package's own file names the SDK only"
    if layer == "__main__":  # `python -m fastserve` is the command line
        return None if target == "cli" else f"{found}: the package's entry names the command line only"
    if target not in LAYERS:
        return f"{found}: the package's public names are for its users, or there is no such layer"
    if LAYERS.index(target) > LAYERS.index(layer):
        return f"{found}: {target} stands after {layer}"
    return None


def package_files() -> list[Path]:
    """Return the package's modules; a feature repo that travels with the wheel is none."""
    return [path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if "_examples" not in path.parts]


def all_imports() -> Iterator[Import]:
    for path in package_files():
        file = path.relative_to(ROOT / PACKAGE).as_posix()
        yield from imports_of(path.read_text(encoding="utf-8"), file)


def test_every_import_keeps_to_the_table() -> None:
    complaints = [text for found in all_imports() if (text := complaint(found)) is not None]
    assert not complaints, "\n".join(complaints)


def test_every_file_is_in_a_layer() -> None:
    layers = {layer_of(path.relative_to(ROOT / PACKAGE).as_posix()) for path in package_files()}
    assert layers <= {"__init__", "__main__", *LAYERS}


def test_the_exceptions_are_needed() -> None:
    assert {(found.file, found.module.split(".")[0]) for found in all_imports()} >= EXCEPTIONS


def clocks_asked(source: str) -> list[int]:
    """Return the lines that call ``….now()`` and its like."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]


def test_a_pure_layer_takes_the_time_as_an_argument() -> None:
    complaints = [
        f"{path.relative_to(ROOT)}:{line} asks for the time"
        for path in package_files()
        if layer_of(path.relative_to(ROOT / PACKAGE).as_posix()) in TIMELESS
        for line in clocks_asked(path.read_text(encoding="utf-8"))
    ]
    assert not complaints, "\n".join(complaints)
    assert clocks_asked("datetime.now(UTC)") == [1]


def test_the_package_imports_nothing_of_its_tests_benchmarks_and_examples() -> None:
    complaints = [
        str(found) for found in all_imports() if found.module.split(".")[0] in {"tests", "perf", "examples"}
    ]
    assert not complaints


@pytest.mark.parametrize(
    "file, line",
    [
        ("plan/reads.py", "from fastserve.serving.coalescer import KeyRead"),
        ("plan/reads.py", "from ..serving import coalescer"),
        ("plan/reads.py", "from fastserve import serving"),
        ("plan/reads.py", "from .. import serving"),
        ("plan/reads.py", "import fastserve.serving.coalescer as c"),
        ("plan/reads.py", "from fastserve import Entity"),
        ("plan/reads.py", "import fastserve"),
        ("plan/reads.py", "def f():\n    import asyncio.events"),
        ("wire/retry.py", "from random import random"),
        ("serving/coalescer.py", "if TYPE_CHECKING:\n    from socket import socket"),
        ("tiles/merge.py", "import os.path"),
        ("sdk/types.py", "import numpy as np"),
        ("store/dynamodb/pool.py", "from ...server import worker"),
        ("errors.py", "from .config import Settings"),
        ("__init__.py", "from fastserve.plan import compile_service"),
    ],
)
def test_an_import_against_the_table_is_found(file: str, line: str) -> None:
    assert [found for found in imports_of(line, file) if complaint(found)]


@pytest.mark.parametrize(
    "file, line",
    [
        ("plan/reads.py", "from fastserve.sdk.types import Int64"),
        (
            "plan/reads.py",
            "from . import keys\nfrom .keys import encode_key\nfrom ..errors import StoreError",
        ),
        ("plan/reads.py", "from __future__ import annotations\nimport datetime\nimport numpy as np"),
        ("server/worker.py", "import asyncio\nfrom fastserve.config import Settings"),
        (
            "store/dynamodb/pool.py",
            "from ..interface import TableSpec\nfrom ...wire import sigv4\nimport time",
        ),
        ("__init__.py", "from fastserve.sdk import Entity\nfrom .errors import FastserveError"),
    ],
)
def test_an_import_that_keeps_to_the_table_is_let_be(file: str, line: str) -> None:
    assert not [text for found in imports_of(line, file) if (text := complaint(found))]
