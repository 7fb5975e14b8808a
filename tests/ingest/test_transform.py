"""Transformations: SQL, functions of tables and of batches, and what goes wrong in them."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest import checking, transform
from fastserve.ingest.badrows import BadRowsError
from fastserve.ingest.definition import source_text
from fastserve.ingest.transform import takes_batches
from tests.ingest.support import Workbench

CSV = "user_id,amount,note\nu1,10,a\nu2,5,b\nu1,7,c\n"
VIEW = """
    source = FileSource("orders", "orders.csv")
    {function}
    view = FeatureView("totals", user, source, [Attribute("total", Int64)], transformation={transformation})
"""


def define(transformation: str, function: str = "") -> str:
    return VIEW.replace("{transformation}", transformation).replace("{function}", function.strip())


def total(bench: Workbench, definitions: str, **options: Any) -> dict[str, object]:
    repo = bench.define(definitions)
    bench.run(repo, **options)
    found = {user: bench.row(repo, "totals", user) for user in ("u1", "u2")}
    return {user: row and row[1]["total"] for user, row in found.items()}


@pytest.mark.parametrize("table", ["orders", "{source}"])
def test_sql_sees_the_source_as_a_table(bench: Workbench, table: str) -> None:
    bench.write("orders.csv", CSV)
    sql = f"SELECT user_id, CAST(sum(amount) AS BIGINT) AS total FROM {table} GROUP BY user_id;"
    assert total(bench, define(repr(sql))) == {"u1": 17, "u2": 5}


def test_sql_over_parquet_keeps_its_types(bench: Workbench) -> None:
    path = bench.write("orders.parquet", b"")
    duckdb.sql(f"COPY (SELECT 'u1' AS user_id, [3, 4] AS parts) TO '{path}'")
    sql = repr("SELECT user_id, list_sum(parts) AS total FROM orders")
    assert total(bench, define(sql).replace("orders.csv", "orders.parquet")) == {"u1": 7, "u2": None}


def test_a_row_whose_text_does_not_fit_the_inferred_type_is_bad(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        transform, "sniffed_types", lambda *_: {"user_id": "VARCHAR", "amount": "BIGINT", "note": "DATE"}
    )
    bench.write("orders.csv", CSV + "u2,many,d\n")
    sql = "SELECT user_id, CAST(sum(amount) AS BIGINT) AS total FROM orders GROUP BY user_id"
    definitions = define(repr(sql))
    assert total(bench, definitions, max_bad_rows=1) == {"u1": 17, "u2": 5}
    with pytest.raises(
        BadRowsError,
        match="row 4: amount: expected BIGINT as in the file's first rows, got 'many'",
    ):
        total(bench, definitions)


FUNCTION = """
    def totals(table: {annotation}):
        sizes.append(table.num_rows)
        return table.append_column("total", pyarrow.compute.multiply(table.column("amount"), 2))
    sizes = []
    transformation = totals
"""


def test_a_function_gets_the_whole_table(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "BATCH_ROWS", 2)
    bench.write("orders.csv", CSV)
    assert total(bench, define("totals", FUNCTION.format(annotation="pyarrow.Table"))) == {"u1": 14, "u2": 10}


def test_a_function_of_batches_gets_batches(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "BATCH_ROWS", 1_000)
    monkeypatch.setattr(transform, "TABLE_BYTES_MAX", 1_000)
    monkeypatch.setattr(checking, "BATCH_ROWS", 10)
    bench.write("orders.csv", "user_id,amount,note\n" + "".join(f"u{n % 3},{n},x\n" for n in range(5_000)))
    batches = define("totals", FUNCTION.format(annotation="pyarrow.RecordBatch"))
    assert total(bench, batches) == {"u1": 2 * 4_999, "u2": 2 * 4_997}
    with pytest.raises(
        DefinitionError, match=r"a function of a whole table, got a larger one: annotate its parameter"
    ):
        total(bench, define("totals", FUNCTION.format(annotation="pyarrow.Table")))


def test_bad_rows_of_a_result_are_numbered_in_the_result(bench: Workbench) -> None:
    bench.write("orders.csv", CSV)
    sql = repr("SELECT CASE WHEN note <> 'b' THEN user_id END AS user_id, amount AS total FROM orders")
    with pytest.raises(BadRowsError, match=r"totals \(transformed\), row 2: user_id: .* not null, got null"):
        total(bench, define(sql))


@pytest.mark.parametrize(
    "transformation, function, message",
    [
        (
            repr("SELECT nothing FROM orders"),
            "",
            "transformation (expected one that runs, got BinderException: ",
        ),
        (
            repr("SELEC user_id FROM orders"),
            "",
            "transformation (expected one that runs, got ParserException: ",
        ),
        ("broken", "def broken(table): return table.column('none')", "got KeyError: "),
        ("broken", "def broken(table): return 7", "expected it to return a pyarrow.Table, got int"),
    ],
)
def test_a_transformation_that_fails_is_named_with_its_view(
    bench: Workbench, transformation: str, function: str, message: str
) -> None:
    bench.write("orders.csv", CSV)
    with pytest.raises(DefinitionError) as caught:
        total(bench, define(transformation, function))
    assert message in str(caught.value)
    assert "FeatureView 'totals'" in str(caught.value)
    assert "defs.py:" in str(caught.value)


def test_an_error_while_rows_are_made_is_the_authors_too(bench: Workbench) -> None:
    bench.write("orders.csv", CSV)
    with pytest.raises(
        DefinitionError, match=r"totals \(transformed\): expected rows that can be read, got: .*boom"
    ):
        total(bench, define(repr("SELECT user_id, CAST(error('boom') AS BIGINT) AS total FROM orders")))


def test_a_source_without_rows_is_refused_by_a_transformation(bench: Workbench) -> None:
    bench.write("orders.csv", "user_id,amount\n")
    with pytest.raises(DefinitionError, match="FileSource 'orders': expected rows, found none"):
        total(bench, define(repr("SELECT * FROM orders")))


def test_a_function_is_known_by_its_source() -> None:
    def one(table: object) -> object:
        return table

    assert "def one" in source_text(one)
    assert source_text(None) == ""
    assert source_text("SELECT 1") == "SELECT 1"
    assert source_text(len) == "len"
    assert not takes_batches(one)


def test_sql_may_ask_up_to_when_is_materialized(bench: Workbench) -> None:
    bench.write("orders.csv", CSV)
    sql = "SELECT user_id, CAST(year({until}) AS BIGINT) AS total FROM {source} GROUP BY user_id"
    assert total(bench, define(repr(sql)), until_ns=1_388_404_800_123_456_789) == {"u1": 2013, "u2": 2013}


def test_the_source_of_a_function_is_that_of_when_it_was_first_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    file.write_text("def one(table):\n    return table\n")
    spec = spec_from_file_location("made", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    before = source_text(module.one)
    file.write_text("# a line\n# and another\ndef one(table):\n    return table.slice(1)\n")
    assert source_text(module.one) == before == "def one(table):\n    return table\n"
