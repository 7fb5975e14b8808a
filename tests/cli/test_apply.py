from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.shop_repo import DEFINITIONS, write_shop_repo

ERROR = "fastserve: error: apply: expected --yes where nobody can be asked, got neither it nor a terminal\n"


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Sit at the terminal and answer every question so."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: text)


def test_the_plan_is_shown_and_with_yes_carried_out(run: Run, shop: str) -> None:
    ran = run("apply", "--repo", shop, "--store", "local:store", "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Workspace shop in local:store\n  table shop.profile: to be created\n")
    assert "  table legacy_shops: to be created\n" in ran.out
    assert "  view spending: new" in ran.out
    assert ran.out.endswith("Applied.\n")


def test_what_is_applied_needs_no_yes(run: Run, shop: str) -> None:
    run("apply", "--repo", shop, "--store", "local:store", "--yes")
    ran = run("apply", "--repo", shop, "--store", "local:store")
    assert ran.code == 0
    assert ran.out.endswith("  view shop: unchanged\nNothing to do.\n")


def test_where_nobody_can_be_asked_nothing_is_done(
    run: Run, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    ran = run("apply", "--repo", shop, "--store", "local:store")
    assert ran.code == 2
    assert "  table shop.profile: to be created\n" in ran.out
    assert ran.err == ERROR
    assert run("check", "--repo", shop, "--store", "local:store").code == 2


@pytest.mark.parametrize("text", ["", "n", "no", "what?"])
def test_anything_but_a_yes_is_a_no(run: Run, shop: str, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answer(monkeypatch, text)
    ran = run("apply", "--repo", shop, "--store", "local:store")
    assert ran.code == 1
    assert ran.out.endswith("Nothing was changed.\n")
    assert run("check", "--repo", shop, "--store", "local:store").code == 2


@pytest.mark.parametrize("text", ["y", "YES "])
def test_a_yes_at_the_terminal_is_one(
    run: Run, shop: str, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    answer(monkeypatch, text)
    assert run("apply", "--repo", shop, "--store", "local:store").out.endswith("Applied.\n")


def test_incompatible_changes_are_shown_and_refused(run: Run, shop: str) -> None:
    run("apply", "--repo", shop, "--store", "local:store", "--yes")
    write_shop_repo(Path(shop), DEFINITIONS.replace('"user_id", fs.String', '"user_id", fs.Int64'))
    ran = run("apply", "--repo", shop, "--store", "local:store", "--yes")
    assert ran.code == 2
    assert (
        "view profile: incompatible: the join keys changed from user_id: string to user_id: int64" in ran.out
    )
    assert ran.err.startswith("fastserve: error: expected changes that the store can follow, got:\n")


def test_all_that_is_wrong_in_a_repo_is_shown_at_once(run: Run, shop: str) -> None:
    wrong = DEFINITIONS.replace('fs.Attribute("city", fs.String)', 'fs.Attribute("city", str)').replace(
        "ttl=timedelta(days=30)", "ttl=30"
    )
    write_shop_repo(Path(shop), wrong)
    ran = run("apply", "--repo", shop, "--store", "local:store", "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("fastserve: error: 2 errors in the feature repo:\n")
    assert ran.err.count("definitions.py:") == 2


@pytest.mark.parametrize(
    "store, text",
    [
        (
            "mysql://root:secret@db",
            "store URL: expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got the scheme 'mysql'",
        ),
        ("dynamodb:", "store URL: expected a region, as in dynamodb://eu-central-1"),
        ("local:", "store URL: local: needs a folder"),
    ],
)
def test_a_store_that_can_t_be_meant_is_refused(run: Run, shop: str, store: str, text: str) -> None:
    ran = run("apply", "--repo", shop, "--store", store, "--yes")
    assert ran.code == 2
    assert text in ran.err
    assert "secret" not in ran.err
