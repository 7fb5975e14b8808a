"""What docs/on-demand.md shows is run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fastserve.cli import main
from fastserve.plan.service import plan_workspace
from fastserve.sdk.expression_functions import DIFFERENCE_UNITS, PARTS
from fastserve.sdk.expression_operators import BUILDERS
from fastserve.sdk.repo import Repo, load_repo

PAGE = Path(__file__).resolve().parent.parent / "docs" / "on-demand.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    (tmp_path / "definitions.py").write_text("\n\n".join(blocks("python")), encoding="utf-8")
    return load_repo(tmp_path)


def test_the_definitions_load_and_the_answer_is_in_the_order_told(repo: Repo) -> None:
    plan = plan_workspace(repo).services["scoring"]
    names = [output.name for output in plan.outputs]
    assert names == ["unusual.ratio", "spending.amount_count_28d_1h", "spending.amount_mean_28d_1h"]
    assert all(f"`{name}`" in TEXT for name in names)
    assert [field.name for field in plan.context_fields] == ["amount"]
    assert list(repo.on_demand_views) == ["unusual", "generation", "unusual_in_columns", "checks"]


def test_the_page_s_own_tests_pass(repo: Repo) -> None:
    names: dict[str, object] = {}
    exec("\n\n".join(blocks("python")), names)
    tests = [value for name, value in names.items() if name.startswith("test_") and callable(value)]
    assert len(tests) == 2
    for test in tests:
        test()
    columns = repo.on_demand_views["unusual_in_columns"]
    inputs = {"request": {"amount": 20.0}, "spending": {}}
    assert columns.test_run(inputs) == repo.on_demand_views["unusual"].test_run(inputs)


def test_the_command_runs_on_the_case(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repo.path)
    (case,) = blocks("json")
    (command,) = blocks("sh")
    Path("case.json").write_text(case, encoding="utf-8")
    program, *arguments = shlex.split(command)
    assert program == "fastserve"
    assert main(arguments, {}) == 0
    assert '"ratio": 2.0' in capsys.readouterr().out


def test_every_function_and_unit_is_on_the_page() -> None:
    calculations = TEXT.partition("## Calculations")[2].partition("\n## ")[0]
    functions = [name for name in BUILDERS if name.isalpha() and name not in {"AND", "OR", "NOT", "IN"}]
    for name in (*functions, *DIFFERENCE_UNITS, *PARTS):
        assert re.search(rf"\b{name}\b", calculations), name
