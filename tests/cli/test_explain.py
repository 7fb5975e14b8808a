from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "explain"


def test_a_service_is_explained_with_the_table_names_of_its_store(run: Run, shop: str) -> None:
    ran = run("explain", "fraud:v2", "--repo", shop, "--store", "dynamodb://eu-central-1?prefix=p_")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (GOLDEN / "fraud.txt").read_text(encoding="utf-8")


def test_json_and_the_price_are_the_caller_s_choice(run: Run, shop: str) -> None:
    ran = run("explain", "users", "--repo", shop, "--json", "--price-per-million-read-units", "1")
    document = json.loads(ran.out)
    assert document["price_per_million_vectors_usd"] == 0.5
    assert document["reads"] == [
        {"join_keys": ["user_id"], "tables": ["shop.profile"], "block": None, "rows": None}
    ]


@pytest.mark.parametrize("price", ["nan", "-1", "inf", "cheap"])
def test_what_is_no_price_is_refused(run: Run, price: str) -> None:
    ran = run("explain", "users", f"--price-per-million-read-units={price}")
    assert ran.code == 2
    assert "expected a price in USD, such as 0.125" in ran.err


def test_an_unknown_service_is_told_with_those_that_are_there(run: Run, shop: str) -> None:
    ran = run("explain", "fraud", "--repo", shop)
    assert ran.code == 2
    assert ran.err == "fastserve: error: service: expected one of fraud:v2, users, got 'fraud'\n"
