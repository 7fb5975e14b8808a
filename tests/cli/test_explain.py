from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastserve.cli.measured import _samples
from fastserve.server.metrics_table import Kind
from fastserve.server.metrics_text import Sample, family
from tests.cli.conftest import CannedServer, Run

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
        {"join_keys": ["user_id"], "tables": ["shop.profile"], "block": None, "store": None, "rows": None}
    ]


def test_reads_of_redis_have_no_price(run: Run, shop: str) -> None:
    arguments = ["explain", "users", "--repo", shop]
    ran = run(*arguments, "--store", "redis://127.0.0.1?prefix=p_")
    assert "  no price    the main store: Redis charges nothing for reads and writes" in ran.out
    assert "USD" not in ran.out
    document = json.loads(run(*arguments, "--store", "redis://127.0.0.1", "--json").out)
    assert (document["read_units"], document["unpriced_stores"]) == (0, [""])


@pytest.mark.parametrize("price", ["nan", "-1", "inf", "cheap"])
def test_what_is_no_price_is_refused(run: Run, price: str) -> None:
    ran = run("explain", "users", f"--price-per-million-read-units={price}")
    assert ran.code == 2
    assert "expected a price in USD, such as 0.125" in ran.err


def test_an_unknown_service_is_told_with_those_that_are_there(run: Run, shop: str) -> None:
    ran = run("explain", "fraud", "--repo", shop)
    assert ran.code == 2
    assert ran.err == "fastserve: error: service: expected one of fraud:v2, users, got 'fraud'\n"


DOUBLED = """
double = fs.on_demand_feature_view(
    sources=[profile], features=[fs.Attribute("twice", fs.Int64)]
)


@double
def doubled(row: dict[str, object]) -> dict[str, object]:
    return {"twice": 2 * row["age"]}


twice = fs.FeatureService(name="twice", features=[doubled])
"""


@pytest.fixture
def computing(shop: str) -> str:
    """Give the repo with a service that computes."""
    definitions = Path(shop) / "definitions.py"
    definitions.write_text(definitions.read_text(encoding="utf-8") + DOUBLED, encoding="utf-8")
    return shop


def scrape(view: str) -> bytes:
    """Return metrics as the server renders them."""
    families = {"calls": 4, "vectors": 10, "seconds": 0.00005, "failures": 1}
    lines = [
        line
        for name, number in families.items()
        for line in family(
            f"fastserve_on_demand_{name}_total",
            Kind.COUNTER,
            "Help.",
            [Sample({"view": "other"}, 99), Sample({"view": view}, number)],
        )
    ]
    return "\n".join([*lines, ""]).encode()


def test_what_a_server_measured_of_on_demand_views_is_added(
    run: Run, computing: str, canned: CannedServer
) -> None:
    canned.body = scrape("doubled")
    ran = run("explain", "twice", "--repo", computing, "--measured", canned.url)
    assert (ran.code, ran.err, canned.paths) == (0, "", ["/metrics"])
    assert ran.out.endswith(
        f"\n\nOn-demand views as the server at {canned.url} has measured them since it started\n"
        "  view     calls  vectors  vectors per call  us per vector  failures\n"
        "  doubled      4       10               2.5            5.0         1\n"
    )
    document = json.loads(
        run("explain", "twice", "--repo", computing, "--measured", canned.url, "--json").out
    )
    assert document["measured"] == [
        {"view": "doubled", "calls": 4, "vectors": 10, "seconds": 5e-05, "failures": 1, "us_per_vector": 5.0}
    ]


def test_a_view_that_was_never_called_has_nothing_measured(
    run: Run, computing: str, canned: CannedServer
) -> None:
    canned.body = scrape("older")
    out = run("explain", "twice", "--repo", computing, "--measured", canned.url).out
    assert out.endswith("\n  doubled      0        0                                          0\n")
    users = run("explain", "users", "--repo", computing, "--measured", canned.url).out
    assert users.endswith("\nNothing is measured: users has no on-demand view\n")


def test_an_address_without_our_metrics_is_told(run: Run, computing: str, canned: CannedServer) -> None:
    ran = run("explain", "twice", "--repo", computing, "--measured", canned.url)
    assert (ran.code, ran.out) == (1, "")
    assert f"expected the metrics of fastserve at {canned.url}/metrics, got none" in ran.err
    ran = run("explain", "twice", "--repo", computing, "--measured", "ftp://here")
    assert "URL: expected http://HOST:PORT or https://HOST, got 'ftp://here'" in ran.err


@pytest.mark.parametrize("view", ['a"b', "a\\b", "a\nb", "a\\nb"])
def test_names_are_read_as_they_were_written(view: str) -> None:
    assert set(_samples(scrape(view).decode())) == {"other", view}
