from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.cli.export import _bytes, _usd
from tests.cli.conftest import Run

UNTIL = ["--until", "2026-01-02T10:00:00Z"]


@pytest.fixture
def exported(run: Run, shop: str) -> str:
    """Export one view of the shop; return what was printed."""
    store = ["--store", "dynamodb://eu-central-1?prefix=prod."]
    ran = run("materialize", "spending", "--repo", shop, *store, *UNTIL, "--export", "out")
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def test_an_export_says_what_it_holds_what_it_costs_and_what_to_do(exported: str) -> None:
    report, rest = exported.split("\n\n", 1)
    assert [line.split()[0] for line in report.splitlines()] == ["view", "spending"]
    heading, spending, prices, _, way, upload, command, *after = rest.splitlines()
    words = ["view", "files", "text", "compressed", "import", "write", "units", "puts", "instead"]
    assert heading.split() == words
    assert spending.split()[:2] == ["spending", "1"]
    assert prices == (
        "Prices: $0.15 for a GB of text imported, $0.625 for a million write units "
        "(us-east-1, list price since November 2024)."
    )
    assert way == "An import makes its table, so there must be none yet. With BUCKET filled in:"
    assert upload.startswith("  aws s3 cp --recursive out/prod.shop.spending/data s3://BUCKET/")
    assert command.startswith("  aws dynamodb import-table --region eu-central-1 ")
    assert after == [
        "Once the imports are done:",
        "  fastserve apply",
        "  fastserve materialize --imported out",
    ]


def test_each_import_goes_to_the_region_of_the_view_s_own_store(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "events.csv").write_text("user_id,at,age\nu1,2026-01-01T00:00:00Z,41\n")
    (folder / "defs.py").write_text(
        """
from fastserve import *

user = Entity("user", Field("user_id", String))
events = FileSource("events", path="events.csv", timestamp_field="at")
FeatureView("near", user, events, [Attribute("age", Int64)])
FeatureView("far", user, events, [Attribute("age", Int64)], store="far")
FeatureView("fast", user, events, [Attribute("age", Int64)], store="fast")
"""
    )
    stores = ["dynamodb://eu-central-1", "far=dynamodb://us-east-2", "fast=redis://127.0.0.1"]
    flags = [flag for url in stores for flag in ("--store", url)]
    ran = run("materialize", "--all", "--repo", str(folder), *flags, *UNTIL, "--export", "out")
    assert (ran.code, ran.err) == (0, "")
    commands = [line.split() for line in ran.out.splitlines() if "import-table" in line]
    assert [words[4] if words[3] == "--region" else "" for words in commands] == [
        "eu-central-1",
        "us-east-2",
        "",
    ]


def test_an_import_that_is_not_there_yet_is_not_recorded(run: Run, shop: str) -> None:
    where = ["--repo", shop, "--store", "local:store"]
    assert run("apply", *where, "--yes").code == 0
    assert run("materialize", "spending", *where, *UNTIL, "--export", "out").code == 0
    ran = run("materialize", *where, "--imported", "out")
    assert ran.code == 2
    assert "table shop.spending: expected the rows of " in ran.err
    assert run("materialize", "spending", *where, *UNTIL).code == 0
    ran = run("materialize", *where, "--imported", "out")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "spending: 1 item in shop.spending, recorded as materialized until 2026-01-02T10:00:00Z\n"
    )


def test_flags_of_different_ways_are_not_mixed(run: Run, shop: str) -> None:
    for argv, expected in (
        (["--due", "--export", "out"], "expected --due without --export, got both"),
        (["--imported", "out", "spending"], "expected --imported without VIEW, got both"),
        (["--imported", "out", "--export", "out"], "expected --imported without --export, got both"),
    ):
        ran = run("materialize", "--repo", shop, *argv)
        assert (ran.code, ran.err) == (2, f"fastserve: error: materialize: {expected}\n")


def test_sizes_and_prices_are_short() -> None:
    assert [_bytes(size) for size in (0, 1023, 1024, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KB",
        "5.0 MB",
        "3.0 GB",
    ]
    prices = (0, 0.0001, 0.00193, 0.15, 0.625, 12.345, 12345.6)
    assert [_usd(price) for price in prices] == [
        "$0",
        "< $0.001",
        "$0.00193",
        "$0.15",
        "$0.625",
        "$12.3",
        "$12,346",
    ]
