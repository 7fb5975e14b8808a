"""Feast's own virtual environment: `python -m perf.compare.feast.environment` makes it beforehand."""

from __future__ import annotations

from pathlib import Path

from perf.compare.environments import PackageEnvironment
from perf.load.child import ROOT

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_FEAST = PackageEnvironment("feast", REQUIREMENTS)


def feast_version() -> str:
    """Give the version of Feast that is pinned."""
    return _FEAST.version


def feast_command() -> Path:
    """Give the path of `feast`, after making the environment if it is missing or out of date.

    Raises:
        ChildError: the packages can't be installed.
    """
    return _FEAST.program("feast")


if __name__ == "__main__":
    print(feast_command().relative_to(ROOT))
