"""The compiled build: the modules that every request passes, made into C by mypyc, and the inner loops in C.

    python deploy/compiled.py FOLDER [--opt-level 2]    # the package with both into FOLDER, for tests, perf
    python deploy/compiled.py --native                  # the inner loops alone, into the checkout

As hatchling's build hook it does the first for a wheel when FASTSERVE_COMPILED is 1 in the environment, the
second for an editable installation where there is a C compiler. Otherwise the package is what it is in the
repository: nothing is compiled, and no compiler is needed.

Invariants
1. Both builds have one source. A module here is listed, not changed; its `.py` travels beside it. An inner
   loop in C has a twin in Python, which runs where it isn't compiled and gives the same answers.
2. All listed modules are compiled or none: what of a running server is compiled is one answer.
"""  # noqa: INP001 - run as a file

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "fastserve"
ASKED_BY = "FASTSERVE_COMPILED"

OPT_LEVEL = "2"

# In the order of a request's way. A module is here because measuring with and without it told so
# (docs/decisions/0009-compiled-hot-path.md).
MODULES = (
    "server/exchange.py",
    "server/connections.py",
    "server/protocol.py",
    "server/application.py",
    "server/service_handler.py",
    "server/vector_answer.py",
    "api/decode.py",
    "api/values.py",
    "api/context.py",
    "api/encode.py",
    "api/encode_on_demand.py",
    "serving/requests.py",
    "serving/ready.py",
    "serving/engine.py",
    "serving/coalescer.py",
    "serving/caching.py",
    "serving/admission.py",
    "serving/vector_rows.py",
    "serving/vectors.py",
    "serving/columns.py",
    "serving/aggregates.py",
    "serving/on_demand.py",
    "serving/on_demand_batch.py",
    "serving/on_demand_call.py",
    "serving/on_demand_sources.py",
    "serving/on_demand_values.py",
    "sdk/values.py",
    "plan/keys.py",
    "store/dynamodb/reader.py",
    "store/dynamodb/batch_get.py",
    "store/dynamodb/call.py",
    "store/dynamodb/connection.py",
    "store/dynamodb/pool.py",
    "wire/client_http.py",
    "wire/sigv4.py",
    "wire/http1.py",
    "wire/http1_answer.py",
)

# Inner loops for which Python has no fast enough means (docs/decisions/0012-inner-loops-in-c.md).
NATIVE = (
    *("api/_float_text.c", "store/dynamodb/_plain_rows.c"),
    *("tiles/_head_merge.c", "tiles/_merge_loop.c"),
)
# The load harness has a loop, too; it is compiled in a checkout and is in no wheel.
NATIVE_PERF = ("perf/load/_prepared_answer.c",)
NATIVE_HEADERS = ("api/_float_text_avx512.h", "tiles/_words.h")
# A loop over bytes is vectorized at level 3 alone. Products are rounded before they are added, as by NumPy.
NATIVE_FLAGS = (
    *("-O3", "-fno-math-errno", "-ffp-contract=off"),
    *("-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
)

# Types are judged elsewhere (`make type`), with all of a developer's packages; here they have to be known.
MYPY_FLAGS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")


def copy_package(folder: Path) -> None:
    """Put the package's sources into ``folder``."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".fastserve")
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=ignored, dirs_exist_ok=True)


def compile_in(folder: Path, opt_level: str) -> list[Path]:
    """Compile the listed modules of the package in ``folder``; return the libraries, relative to it.

    Raises:
        subprocess.CalledProcessError: mypyc or the C compiler refused.
    """
    # A process of its own, for mypyc goes by the current folder, which tells it the modules' names.
    command = [sys.executable, str(Path(__file__).resolve()), "--here", "--opt-level", opt_level]
    environment = {**os.environ, "PYTHONPATH": "", "MYPYPATH": ""}
    subprocess.run(command, cwd=folder, check=True, env=environment)  # noqa: S603 - this file
    shutil.rmtree(folder / "build")
    compile_native([folder / PACKAGE / name for name in NATIVE])
    return sorted(path.relative_to(folder) for path in folder.rglob("*.so"))


def compile_native(sources: Iterable[Path]) -> None:
    """Compile inner loops, each beside its source.

    Raises:
        OSError: there is no C compiler.
        subprocess.CalledProcessError: it refused; Python's headers may be missing.
    """
    linker = shlex.split(sysconfig.get_config_var("LDSHARED"))
    headers = ("-isystem", sysconfig.get_path("include"))  # whose warnings, of any version, are no errors
    for source in sources:
        library = source.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
        half_done = library.with_suffix(".partial")
        command = [*linker, *NATIVE_FLAGS, *headers, str(source), "-o", str(half_done)]
        subprocess.run(command, check=True)  # noqa: S603 - the compiler that Python was built with
        half_done.replace(library)  # whole: a server may be starting


def _compile_here(opt_level: str) -> None:
    from mypyc.build import mypycify
    from setuptools import setup

    paths = [f"{PACKAGE}/{module}" for module in MODULES]
    extensions = mypycify(
        [*MYPY_FLAGS, *paths], opt_level=opt_level, debug_level="0", group_name=f"{PACKAGE}_compiled"
    )
    jobs = str(len(os.sched_getaffinity(0)))
    setup(
        name=PACKAGE,
        packages=[],
        ext_modules=extensions,
        script_args=["--quiet", "build_ext", "--build-lib", ".", "--build-temp", "build", "--parallel", jobs],
    )


def compile_checkout() -> None:
    """Compile all inner loops of the checkout.

    Raises:
        OSError: there is no C compiler.
        subprocess.CalledProcessError: it refused; Python's headers may be missing.
    """
    of_harness = [ROOT / name for name in NATIVE_PERF if (ROOT / name).exists()]  # in no source distribution
    compile_native([*(ROOT / PACKAGE / name for name in NATIVE), *of_harness])


def _compile_native_if_possible() -> None:
    try:
        compile_checkout()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(
            f"fastserve: the inner loops aren't compiled, their twins in Python serve: {error}\n"
        )


class CompiledHook(BuildHookInterface[Any]):
    """Adds the libraries to a wheel that is asked to have them, and the loops to a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is asked for: all for a wheel that is to have it, the inner loops for a checkout."""
        if version == "editable":
            _compile_native_if_possible()
            return
        if os.environ.get(ASKED_BY) != "1":
            return
        folder = Path(tempfile.mkdtemp(prefix="fastserve-compiled-"))
        self._folder = folder
        try:
            copy_package(folder)
            libraries = compile_in(folder, OPT_LEVEL)
        except BaseException:  # then nobody calls `finalize`
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for library in libraries:
            build_data["force_include"][str(folder / library)] = library.as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        folder = getattr(self, "_folder", None)
        if folder is not None:
            shutil.rmtree(folder)


def main() -> None:
    """Compile into a folder."""
    parser = argparse.ArgumentParser(prog="python deploy/compiled.py", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--opt-level", default=OPT_LEVEL, choices="0123")
    parser.add_argument(
        "--native", action="store_true", help="compile the inner loops alone, in the checkout"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        _compile_here(options.opt_level)
        return
    if options.native:
        compile_checkout()
        return
    if options.folder is None:
        parser.error("FOLDER: expected the folder to put the package into, got none")
    copy_package(options.folder)
    libraries = compile_in(options.folder, options.opt_level)
    sys.stdout.write(f"{options.folder}: {len(libraries)} libraries\n")


if __name__ == "__main__":
    main()
