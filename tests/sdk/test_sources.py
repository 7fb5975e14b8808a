"""Sources: where their files are, in which format, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fastserve import DefinitionError, Field, FileSource, Int64, PushSource, String, Timestamp
from tests.sdk.authoring import fault_of

HERE = Path(__file__).parent


def test_a_relative_path_is_meant_from_the_defining_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert FileSource("s", "data/*.csv").paths == (f"{HERE}/data/*.csv",)
    assert FileSource("s", ["a.csv", "/abs/b.csv"]).paths == (f"{HERE}/a.csv", "/abs/b.csv")
    assert FileSource("s", HERE / "c.csv").paths == (f"{HERE}/c.csv",)


@pytest.mark.parametrize(
    "url", ["s3://bucket/a/*.parquet", "gs://bucket/a.parquet", "package://some_data/a.parquet"]
)
def test_urls_stay_as_they_are(url: str) -> None:
    assert FileSource("s", url).paths == (url,)


@pytest.mark.parametrize(
    "path,format",
    [
        ("a.parquet", "parquet"),
        ("A.PARQUET", "parquet"),
        ("a.pq", "parquet"),
        ("a.csv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.csv.zst", "csv"),
        ("a.csv.zip", "csv"),
        ("s3://b/year=*/*.csv.gz", "csv"),
    ],
)
def test_the_format_is_taken_from_the_extension(path: str, format: str) -> None:
    assert FileSource("s", path).format == format


def test_a_format_given_is_taken_whatever_the_extension() -> None:
    assert FileSource("s", "part-*", format="parquet").format == "parquet"
    assert FileSource("s", ["a.txt", "b.csv"], format="csv", delimiter="\t").delimiter == "\t"


def test_empty_and_na_mean_null_unless_said_otherwise() -> None:
    assert FileSource("s", "a.csv").null_values == ("", "NA")
    assert FileSource("s", "a.csv", null_values=["-"]).null_values == ("-",)


def test_a_file_of_an_installed_package_is_found_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_data_for_test"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('not to be run')")
    (package / "data" / "a.csv").write_text("x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = FileSource("s", ["package://some_data_for_test/data/a.csv", "/b.csv"])
    assert source.locations() == (str(package / "data" / "a.csv"), "/b.csv")
    assert "some_data_for_test" not in sys.modules


def test_a_package_that_is_not_installed_is_missed_only_when_its_files_are_asked_for() -> None:
    source = FileSource("s", "package://no_such_package_at_all/a.csv")
    with pytest.raises(DefinitionError) as caught:
        source.locations()
    assert caught.value.message == (
        "FileSource 's': path 'package://no_such_package_at_all/a.csv' (expected the Python package "
        "'no_such_package_at_all' to be installed here, got none)"
    )


def test_a_module_that_is_no_package_holds_no_files() -> None:
    with pytest.raises(DefinitionError, match="to be installed here"):
        FileSource("s", "package://this/a.csv").locations()


def test_a_push_source_knows_its_columns() -> None:
    files = FileSource("history", "h.parquet")
    source = PushSource("tx", [Field("k", String), Field("ts", Timestamp)], files, "ts")
    assert source.column("k") == Field("k", String)
    assert source.column("x") is None
    assert (source.batch_source, source.timestamp_field) == (files, "ts")


NAME = "a letter, then letters, digits and _ . : -, at most 120 characters"
FORMAT = (
    'FileSource \'s\': format (expected "parquet" or "csv", as the paths don\'t all end in .parquet, '
    "or all in .csv (with .gz, .zst, .zip after it or not), got None)"
)


@pytest.mark.parametrize(
    "expression,message",
    [
        ('FileSource("a b", "x.csv")', f"FileSource 'a b': name (expected {NAME}, got 'a b')"),
        ('FileSource("s", "")', "FileSource 's': path (expected a path or glob, got '')"),
        ('FileSource("s", [])', "FileSource 's': path (expected at least one path or glob, got [])"),
        ('FileSource("s", ["a.csv", 5])', "FileSource 's': path[1] (expected path or glob, got 5)"),
        ('FileSource("s", None)', "FileSource 's': path (expected a list of path or glob, got None)"),
        (
            'FileSource("s", "http://host/a.csv")',
            (
                "FileSource 's': path (expected a path, or one that begins with package://, s3://, gs://, "
                "got 'http://host/a.csv')"
            ),
        ),
        (
            'FileSource("s", "s3://bucket", format="csv")',
            "FileSource 's': path (expected s3://<bucket>/<file>, got 's3://bucket')",
        ),
        (
            'FileSource("s", "package://flights.data/a.csv")',
            (
                "FileSource 's': path (expected package://<top-level package>/<file inside it>, "
                "got 'package://flights.data/a.csv')"
            ),
        ),
        (
            'FileSource("s", "package://flights/../secret.csv")',
            (
                "FileSource 's': path (expected package://<top-level package>/<file inside it>, "
                "got 'package://flights/../secret.csv')"
            ),
        ),
        ('FileSource("s", "data/*")', FORMAT),
        ('FileSource("s", "data.zip")', FORMAT),
        ('FileSource("s", "data.parquet.gz")', FORMAT),
        ('FileSource("s", ["a.csv", "b.parquet"])', FORMAT),
        (
            'FileSource("s", "x.csv", format="json")',
            "FileSource 's': format (expected \"parquet\" or \"csv\", got 'json')",
        ),
        (
            'FileSource("s", "x.csv", delimiter=";;")',
            (
                "FileSource 's': delimiter (expected one ASCII character such as \",\", "
                "no quote and no line end, got ';;')"
            ),
        ),
        (
            'FileSource("s", "x.csv", null_values="NA")',
            "FileSource 's': null_values (expected a list of str, got 'NA')",
        ),
        (
            'FileSource("s", "x.csv", timestamp_field=Field("ts", Timestamp))',
            (
                "FileSource 's': timestamp_field (expected a str that isn't empty, or None, "
                "got Field('ts', Timestamp))"
            ),
        ),
        ('PushSource("s", [])', "PushSource 's': schema (expected at least one Field, got [])"),
        ('PushSource("s", ["a"])', "PushSource 's': schema[0] (expected Field, got 'a')"),
        (
            'PushSource("s", [Field("a", Int64), Field("a", Int64)])',
            "PushSource 's': schema: 'a' stands there twice (expected different names)",
        ),
        (
            'PushSource("s", [Field("a", Int64)], batch_source="x.csv")',
            "PushSource 's': batch_source (expected a FileSource, got 'x.csv')",
        ),
        (
            'PushSource("s", [Field("a", Int64)], timestamp_field="ts")',
            "PushSource 's': timestamp_field (expected a column of the schema: a, got 'ts')",
        ),
        (
            'PushSource("s", [Field("ts", String)], timestamp_field="ts")',
            "PushSource 's': timestamp_field 'ts' (expected a column of type Timestamp, got String)",
        ),
    ],
)
def test_a_wrong_source_says_what_was_expected_and_what_came(expression: str, message: str) -> None:
    assert fault_of(expression) == message


def test_fields_are_compared_by_value() -> None:
    assert PushSource("s", [Field("a", Int64)]).schema == (Field("a", Int64),)
