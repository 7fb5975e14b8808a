from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.support.shop_repo import DEFINITIONS, write_shop_repo

SUMMARY = """Workspace shop: 2 entities, 2 sources, 4 views, 2 services
service   features  keys per vector  join keys
fraud:v2        12                5  user_id, payee_id, merchant_id
users            1                1  user_id
"""


def test_a_right_repo_is_summed_up(run: Run, shop: str) -> None:
    ran = run("check", "--repo", shop)
    assert (ran.code, ran.out, ran.err) == (0, SUMMARY, "")


def test_a_repo_without_services_has_no_table_of_them(run: Run, shop: str) -> None:
    write_shop_repo(Path(shop), DEFINITIONS.split("fraud = ", maxsplit=1)[0])
    assert run("check", "--repo", shop).out == "Workspace shop: 2 entities, 2 sources, 4 views, 0 services\n"


def test_on_demand_views_are_counted_where_there_are_any(run: Run, shop: str) -> None:
    computed = """
doubled = fs.OnDemandFeatureView("doubled", [spending], [fs.Calculation("c", "amount_sum_1d_1h * 2")])
scoring = fs.FeatureService("scoring", features=[doubled])
"""
    write_shop_repo(Path(shop), DEFINITIONS + computed)
    out = run("check", "--repo", shop).out
    assert out.startswith("Workspace shop: 2 entities, 2 sources, 4 views, 1 on-demand view, 3 services\n")
    assert "scoring          1                1  user_id\n" in out


def test_all_errors_are_shown_with_their_places(run: Run, shop: str) -> None:
    write_shop_repo(Path(shop), DEFINITIONS + "\nnonsense = (\n")
    ran = run("check", "--repo", shop)
    assert (ran.code, ran.out) == (2, "")
    assert "definitions.py:" in ran.err
    assert "Traceback" not in ran.err


def test_a_folder_that_is_none_is_told(run: Run) -> None:
    ran = run("check", "--repo", "nowhere")
    assert ran.code == 2
    assert ran.err.startswith("fastserve: error: feature repo 'nowhere' (expected a folder, found none)")


def test_files_are_opened_when_that_is_asked_for(run: Run, shop: str) -> None:
    ran = run("check", "--repo", shop, "--files")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == SUMMARY + (
        "view      source    files  columns\n"
        "profile   people        1  fit\n"
        "spending  payments      1  fit\n"
        "pair      payments      1  fit\n"
        "shop      people        1  fit\n"
    )
    (Path(shop) / "payments.csv").unlink()
    (Path(shop) / "people.csv").write_text("user_id,merchant_id,age,town,vip,rating,at\n")
    ran = run("check", "--repo", shop, "--files")
    assert ran.code == 2
    assert ran.err.startswith("fastserve: error: 3 errors in the feature repo:\n")
    assert (
        "column 'city': expected one of that name, people.csv has user_id, merchant_id, age, town" in ran.err
    )
    assert ran.err.count("path (expected at least one file, found none at ") == 2


def test_a_store_that_lacks_tables_does_not_fit(run: Run, shop: str) -> None:
    ran = run("check", "--repo", shop, "--store", "local:store")
    assert ran.code == 2
    assert ran.out == SUMMARY
    assert ran.err.startswith(
        "fastserve: error: local:store doesn't fit the repo; `fastserve apply` makes what is missing:\n"
        "  table shop.profile: there is no such table\n"
    )


def test_an_applied_store_fits_and_is_checked_however_it_is_named(run: Run, shop: str) -> None:
    run("apply", "--repo", shop, "--store", "local:store", "--yes")
    assert run("check", "--repo", shop, "--store", "local:store").out == SUMMARY + "local:store fits.\n"
    assert run("check", "--repo", shop, FASTSERVE_STORE="local:store").out == SUMMARY + "local:store fits.\n"


def test_a_changed_view_is_told_and_let_pass(run: Run, shop: str) -> None:
    run("apply", "--repo", shop, "--store", "local:store", "--yes")
    write_shop_repo(Path(shop), DEFINITIONS.replace('fs.Attribute("vip", fs.Bool),', ""))
    ran = run("check", "--repo", shop, "--store", "local:store")
    assert ran.code == 0
    assert "view profile: changed: feature vip removed" in ran.out


def test_a_table_with_another_key_is_told(run: Run, shop: str) -> None:
    run("apply", "--repo", shop, "--store", "local:store", "--yes")
    write_shop_repo(Path(shop), DEFINITIONS.replace('partition_key="id"', 'partition_key="shop_id"'))
    ran = run("check", "--repo", shop, "--store", "local:store")
    assert ran.code == 2
    assert "table legacy_shops: expected the key shop_id (N), the store's has id (N)" in ran.err
