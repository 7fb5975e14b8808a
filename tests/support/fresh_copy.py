"""A fresh copy of the checkout, as a clone of it would be, with an environment that is made in a second.

The environment's packages are those of the one that runs the tests; what `make` would install counts as
installed. The copy's own fastserve is the one that runs there.
"""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

from tests.support.server_process import ROOT

MARKS = (".build-tools", ".installed", ".installed-dev")
MADE = {".git", ".venv", ".tools", ".fastserve", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache"}
COMMAND = """#!{python}
import sys
from fastserve.cli import main
sys.exit(main())
"""


def copy_checkout(target: Path) -> Path:
    """Copy what git has or would take into ``target`` and give it an environment; return ``target``."""
    for name in _names():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    _make_environment(target)
    return target


def _names() -> list[str]:
    """Return the paths of what belongs to the project; without git or its folder all but what is made."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        return [str(path) for path in paths if not MADE.intersection(path.parts)]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return listed.stdout.decode().rstrip("\0").split("\0")


def _make_environment(target: Path) -> None:
    environment = target / ".venv"
    venv.create(environment, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    lines = [str(target), *site.getsitepackages()]
    (packages / "copied.pth").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = environment / "bin" / "fastserve"
    command.write_text(COMMAND.format(python=python), encoding="utf-8")
    command.chmod(0o755)
    for mark in MARKS:
        (environment / mark).touch()
