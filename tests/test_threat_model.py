"""The threat model names tests that exist, and each of its threats has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "THREAT_MODEL.md").read_text(encoding="utf-8")
STRIDE = (
    "Spoofing",
    "Tampering",
    "Repudiation",
    "Information disclosure",
    "Denial of service",
    "Elevation of privilege",
)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def threats() -> list[str]:
    """Return the rows of the tables that name tests."""
    rows: list[str] = []
    for title in STRIDE:
        found = re.search(rf"^## {title}: [^\n]*\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
        assert found, f"no section {title}"
        rows += found[1].strip().splitlines()[2:]
    return rows


def names_of_tests(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_letter_of_stride_has_threats() -> None:
    assert all(re.search(rf"^## {title}: ", TEXT, re.MULTILINE) for title in STRIDE)
    assert len(threats()) > 30


@pytest.mark.parametrize("row", threats(), ids=lambda row: row.split("|")[1].strip())
def test_each_threat_has_tests_that_exist(row: str) -> None:
    threat, done, shown = row.strip("|").split("|")
    assert threat.strip()
    assert done.strip()
    named = NAMED.findall(shown)
    assert len(named) == shown.count("`") // 2 > 0
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert name in names_of_tests(ROOT / file), f"{file} has no {name}"
