"""Feast's own virtual environment: `python -m perf.compare.feast.environment` makes it beforehand.

Knows what to install and where, nothing of what is measured.

Invariants:
1. Feast and what it brings never enter the project's environment, nor does the project enter theirs.
2. Every package is held to a hash; the environment is made anew when the requirements change.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path

from perf.load.child import ROOT, ChildError

VENV = ROOT / ".tools" / "feast-venv"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def feast_version() -> str:
    """Give the version of Feast that is pinned."""
    lines = REQUIREMENTS.read_text().splitlines()
    (pinned,) = (line for line in lines if line.startswith("feast=="))
    return pinned.removeprefix("feast==").split()[0]


def feast_command() -> Path:
    """Give the path of `feast`, after making the environment if it is missing or out of date.

    Raises:
        ChildError: the packages can't be installed.
    """
    stamp = VENV / "requirements.sha256"
    digest = sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        _make()
        stamp.write_text(digest)
    return VENV / "bin" / "feast"


def _make() -> None:
    print(f"installing Feast {feast_version()} into {VENV.relative_to(ROOT)} …", file=sys.stderr)
    venv.create(VENV, clear=True, with_pip=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    held = ["--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
    if subprocess.run([*pip, *held], check=False).returncode:
        raise ChildError("pip could not install what perf/compare/feast/requirements.txt asks for")


if __name__ == "__main__":
    print(feast_command().relative_to(ROOT))
