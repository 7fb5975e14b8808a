"""What a look at the files tells before anything is materialized."""

from __future__ import annotations

import duckdb
import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest.file_check import CheckedFiles, check_files
from fastserve.sdk.repo import Repo
from tests.ingest.support import Workbench
from tests.ingest.test_materialize import AGGREGATES, BAD

WITH_SQL = """
    source = FileSource("orders", "orders.csv", timestamp_field="at")
    sql = 'SELECT user_id, "at", price * 2 AS twice FROM {source} WHERE "at" < {until}'
    view = FeatureView("doubled", user, source, [Attribute("twice", Float64)], transformation=sql)
"""
ORDERS = "user_id,at,price\nu1,2025-01-01,1.5\n"


def look(bench: Workbench, repo: Repo) -> tuple[list[CheckedFiles], list[DefinitionError]]:
    return check_files([bench.plan(repo, name) for name in repo.views])


def complaint(bench: Workbench, repo: Repo) -> str:
    checked, (error,) = look(bench, repo)
    assert checked == []
    return error.message


def test_files_with_the_view_s_columns_fit_whatever_their_rows(bench: Workbench) -> None:
    bench.write("events.csv", BAD)
    assert look(bench, bench.define(AGGREGATES)) == ([CheckedFiles("spend", "events", 1, True)], [])


def test_what_is_refused_is_what_materialize_refuses(bench: Workbench) -> None:
    repo = bench.define(AGGREGATES)
    for text in (None, "user_id,at,amount\nu,2025-01-01,1\n", "", "a,A\n"):
        if text is not None:
            bench.write("events.csv", text)
        with pytest.raises(DefinitionError) as caught:
            bench.run(repo)
        assert complaint(bench, repo) == caught.value.message


def test_types_of_parquet_are_compared(bench: Workbench) -> None:
    path = bench.write("events.parquet", b"")
    columns = "'u' AS user_id, now() AS \"at\", true AS amount, 1 AS units, 'a' AS kind"
    duckdb.sql(f"COPY (SELECT {columns}) TO '{path}'")
    repo = bench.define(AGGREGATES.replace("events.csv", "events.parquet"))
    assert "column 'amount': expected float64, the source has BOOLEAN" in complaint(bench, repo)


def test_every_file_of_a_source_is_looked_at(bench: Workbench) -> None:
    bench.write("1.csv", "user_id,n\n")
    bench.write("2.csv", "user_id,m\n")
    repo = bench.define(
        """
        source = FileSource("numbers", "*.csv")
        view = FeatureView("numbers", user, source, [Attribute("n", Int64)])
        """
    )
    assert "column 'n': expected one of that name, 2.csv has user_id, m" in complaint(bench, repo)


def test_sql_is_compiled_over_the_files_columns(bench: Workbench) -> None:
    bench.write("orders.csv", ORDERS)
    assert look(bench, bench.define(WITH_SQL)) == ([CheckedFiles("doubled", "orders", 1, True)], [])
    assert "transformation (expected one that runs" in complaint(
        bench, bench.define(WITH_SQL.replace("price * 2", "prize * 2"))
    )
    message = complaint(bench, bench.define(WITH_SQL.replace("AS twice", "AS double")))
    assert (
        "column 'twice': expected one of that name, doubled (transformed) has user_id, at, double" in message
    )


def test_sql_over_parquet_and_csv_sees_the_columns_of_both(bench: Workbench) -> None:
    bench.write("1.csv", ORDERS)
    path = bench.write("2.parquet", b"")
    columns = "'u' AS user_id, now() AS \"at\", 1.5 AS price, 2 AS other"
    duckdb.sql(f"COPY (SELECT {columns}) TO '{path}'")
    text = WITH_SQL.replace('"orders.csv"', '["1.csv", "2.parquet"], format="csv"').replace(
        "price * 2", "price * other"
    )
    assert look(bench, bench.define(text)) == ([CheckedFiles("doubled", "orders", 2, True)], [])


def test_a_function_is_not_called_but_its_files_are_opened(bench: Workbench) -> None:
    repo = bench.define(
        """
        def broken(table):
            raise ValueError
        source = FileSource("orders", "orders.csv")
        view = FeatureView("orders", user, source, [Attribute("n", Int64)], transformation=broken)
        """
    )
    assert "found none at" in complaint(bench, repo)
    bench.write("orders.csv", ORDERS)
    assert look(bench, repo) == ([CheckedFiles("orders", "orders", 1, False)], [])


def test_what_is_wrong_with_all_views_is_told_at_once(bench: Workbench) -> None:
    bench.write("events.csv", BAD)
    profile = WITH_SQL.replace("source", "orders").replace("{orders}", "{source}")
    checked, wrong = look(bench, bench.define(AGGREGATES + profile))
    assert [one.view for one in checked] == ["spend"]
    assert len(wrong) == 1
