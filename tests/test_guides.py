"""What the guide for those who come from Tecton shows is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import fastserve
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import load_repo

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "migrating-from-tecton.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    return [dedent(block) for block in found]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> WorkspacePlan:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "features.py").write_text(blocks("python")[0], encoding="utf-8")
    return plan_workspace(load_repo(folder))


@pytest.fixture(scope="module")
def differences() -> Callable[[Any, Any], dict[str, tuple[object, object]]]:
    names: dict[str, Any] = {}
    exec(blocks("python")[1], names)
    found: Callable[[Any, Any], dict[str, tuple[object, object]]] = names["differences"]
    return found


def test_the_definitions_load_and_answer_in_tecton_s_order_under_tecton_s_names(plan: WorkspacePlan) -> None:
    service = plan.services["fraud"]
    assert [output.name for output in service.outputs] == [
        "amount_ratio.ratio",
        "profile.age",
        "user_transactions.amt_mean_1d_10m",
        "user_transactions.amt_mean_1h_10m",
    ]
    assert [field.name for field in service.join_keys] == ["user_id"]
    assert [field.name for field in service.context_fields] == ["amt"]


def answer(**values: object) -> dict[str, Any]:
    return {
        "result": {"features": list(values.values())},
        "metadata": {"features": [{"name": name} for name in values]},
    }


def test_what_two_servers_don_t_agree_on_is_found_by_name(
    differences: Callable[[Any, Any], dict[str, tuple[object, object]]],
) -> None:
    theirs = answer(count="3", mean=0.1 + 0.2, city="Oslo", gone=None, old=1.5)
    ours = answer(city="Oslo", mean=0.3, count="4", gone=None, new=2.5)
    assert differences(theirs, ours) == {"count": ("3", "4"), "old": (1.5, None), "new": (None, 2.5)}


def test_every_word_that_stays_the_same_is_one_of_ours() -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `Attribute`, `Aggregate`")]
    names = re.findall(r"`(\w+)`", row)
    assert len(names) == 8
    assert set(names) <= set(fastserve.__all__)
