"""The lock files against pyproject.toml and against each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements-build.lock", "requirements-compile.lock", "requirements.lock", "requirements-dev.lock")
PYTHONS = ("3.11", "3.12", "3.13")


def entries(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a lock file with its hashes."""
    whole = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for line in whole.splitlines():
        requirement, *hashes = line.split("--hash=")
        found.append((Requirement(requirement), [text.strip() for text in hashes]))
    return found


def versions(lock: str, python: str) -> dict[str, str]:
    """Return the one version that a lock file gives each package for a Python version on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found: dict[str, str] = {}
    for requirement, _ in entries(lock):
        if requirement.marker is None or requirement.marker.evaluate({**environment, "os_name": "posix"}):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{lock} names {name} twice for Python {python}"
            found[name] = str(requirement.specifier).removeprefix("==")
    return found


def project() -> dict[str, list[str]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {
        "requirements-build.lock": document["build-system"]["requires"],
        "requirements-compile.lock": [*document["build-system"]["requires"], "mypy", "setuptools"],
        "requirements.lock": document["project"]["dependencies"],
        "requirements-dev.lock": [
            *document["project"]["dependencies"],
            *document["project"]["optional-dependencies"]["dev"],
        ],
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_held_to_one_version_and_its_hashes(lock: str) -> None:
    for requirement, hashes in entries(lock):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_no_index_is_named(lock: str) -> None:
    assert not re.search(
        r"://|--(extra-)?index|--find-links|--trusted", (ROOT / lock).read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_what_the_project_asks_for_is_what_the_lock_gives(lock: str, python: str) -> None:
    given = versions(lock, python)
    for text in project()[lock]:
        requirement = Requirement(text)
        assert given[canonicalize_name(requirement.name)] in requirement.specifier, f"{text}: run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_files_agree(python: str) -> None:
    developers = versions("requirements-dev.lock", python)
    for lock in ("requirements.lock", "requirements-build.lock", "requirements-compile.lock"):
        assert versions(lock, python).items() <= developers.items(), lock
