"""The files behind a source, and DuckDB relations over them with bounded memory.

Finds what paths and globs mean, unpacks what DuckDB can't read (a .zip with one CSV file) into the job's
scratch folder, and writes the SQL that reads a file as it stands. What the columns mean is decided elsewhere.

Invariants
1. A CSV file is read as text, with the dialect that its source names: nothing in it is guessed.
2. Rows come in the file's order.
3. The order of files is the author's, within one glob by name: the later of two equal timestamps is the same
   in every run.
"""

from __future__ import annotations

import csv
import glob
import io
import itertools
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from fastserve.errors import DefinitionError, shown
from fastserve.ingest.columns import literal, quoted
from fastserve.sdk.sources import FileFormat, FileSource

OBJECT_STORES = ("s3://", "gs://")
UNKNOWN_BYTES = 1 << 30
"""What an object of unknown size is taken for when partitions are counted."""
HEADER_BYTES_MAX = 1 << 20
_COMPRESSION_RATIO = {".gz": 6, ".zst": 6, ".zip": 6, ".parquet": 4, ".pq": 4}


_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read: where it is, how it is shown, its format, and its estimated bytes as plain text."""

    path: str
    shown: str
    format: FileFormat
    plain_bytes: int
    identity: tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Relation:
    """Something with rows and columns: the SQL to read it, its columns' DuckDB types, a name for messages.

    ``rejects`` names the temporary table that DuckDB fills with lines it can't cut into columns, if it does
    so.
    """

    sql: str
    types: dict[str, str]
    shown: str
    rejects: str | None = None

    def type_of(self, name: str) -> str | None:
        """Return a column's type, None if there is no such column; as in SQL, case doesn't count."""
        return {column.lower(): kind for column, kind in self.types.items()}.get(name.lower())


def connect(scratch: Path, memory_mb: int, threads: int) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB of this job's own, which spills into ``scratch`` beyond ``memory_mb``."""
    spill = scratch / "spill"
    spill.mkdir(parents=True, exist_ok=True)  # DuckDB makes it only when its parent is there
    connection = duckdb.connect(
        config={
            "memory_limit": f"{memory_mb}MB",
            "threads": threads,
            "temp_directory": str(spill),
            "preserve_insertion_order": True,
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # in cursors too
    return connection


def find_files(source: FileSource, inputs: Sequence[str] | None, scratch: Path) -> list[InputFile]:
    """Return the files of a source, or those of ``inputs`` (paths and globs) in its place.

    Raises:
        DefinitionError: a path leads to no file, or to a .zip without exactly one file in it.
    """
    paths = source.locations() if inputs is None else tuple(inputs)
    return [_input_file(source, path, scratch) for pattern in paths for path in _expanded(source, pattern)]


def _expanded(source: FileSource, pattern: str) -> list[str]:
    if pattern.startswith(OBJECT_STORES):
        return [pattern]
    paths = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [path for path in paths if Path(path).is_file()]
    if not files:
        message = (
            f"FileSource {source.name!r}: path (expected at least one file, found none at {shown(pattern)})"
        )
        raise DefinitionError(message, source.location)
    return files


def _input_file(source: FileSource, path: str, scratch: Path) -> InputFile:
    if path.startswith(OBJECT_STORES):
        return InputFile(path, path, _format(source, path), UNKNOWN_BYTES, (path, 0, 0))
    file = Path(path)
    status = file.stat()
    identity = (str(file.resolve()), status.st_size, status.st_mtime_ns)
    plain_bytes = status.st_size * _COMPRESSION_RATIO.get(file.suffix.lower(), 1)
    readable = _unzipped(source, file, scratch) if file.suffix.lower() == ".zip" else file
    return InputFile(str(readable), file.name, _format(source, path), plain_bytes, identity)


def _format(source: FileSource, path: str) -> FileFormat:
    name = path.lower()
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    return "csv" if ".csv" in Path(name).suffixes else source.format


def _unzipped(source: FileSource, file: Path, scratch: Path) -> Path:
    target = scratch / "unzipped" / str(file.resolve()).replace("/", "_").removesuffix(".zip")
    if target.exists():
        return target
    try:
        with zipfile.ZipFile(file) as archive:
            members = [
                m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX")
            ]
            if len(members) != 1:
                message = (
                    f"FileSource {source.name!r}: {file.name} (expected one file in it, got {len(members)})"
                )
                raise DefinitionError(message, source.location)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            with archive.open(members[0]) as packed, partial.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            partial.rename(target)
    except zipfile.BadZipFile as error:
        message = (
            f"FileSource {source.name!r}: {file.name} (expected a .zip archive, got one that isn't: {error})"
        )
        raise DefinitionError(message, source.location) from None
    return target


def file_relation(connection: duckdb.DuckDBPyConnection, source: FileSource, file: InputFile) -> Relation:
    """Return the relation over one file; a CSV file's columns are all text.

    Raises:
        DefinitionError: the file can't be read.
    """
    try:
        if file.format == "parquet":
            sql = f"SELECT * FROM read_parquet({literal(file.path)})"
            return Relation(sql, describe(connection, sql), file.shown)
        names = _header(connection, source, file)
        columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names)
        rejects = f"rejects_{next(_numbers)}"
        tables = f"rejects_table = '{rejects}', rejects_scan = '{rejects}_scans'"
        options = f"{_dialect(source)}, auto_detect = false, {tables}, columns = {{{columns}}}"
        sql = f"SELECT * FROM read_csv({literal(file.path)}, {options})"
        return Relation(sql, dict.fromkeys(names, "VARCHAR"), file.shown, rejects)
    except duckdb.Error as error:
        raise DefinitionError(
            f"FileSource {source.name!r}: {file.shown} (expected a readable {file.format} file, "
            f"got: {first_line(error)})",
            source.location,
        ) from None


def _header(connection: duckdb.DuckDBPyConnection, source: FileSource, file: InputFile) -> list[str]:
    """Return the column names of a CSV file.

    A local file is opened here: DuckDB would look at its first rows as well, and refuse it for a bad one.
    """
    if file.path.startswith(OBJECT_STORES):
        options = f"{_dialect(source)}, all_varchar = true, ignore_errors = true"
        return list(describe(connection, f"SELECT * FROM read_csv({literal(file.path)}, {options})"))
    try:
        with pa.input_stream(file.path, compression="detect") as stream:
            text = stream.read(HEADER_BYTES_MAX).decode("utf-8-sig", errors="replace")
    except (OSError, pa.ArrowException) as error:
        raise duckdb.IOException(first_line(error)) from None
    names = next(csv.reader(io.StringIO(text), delimiter=source.delimiter), [])
    if not names:
        raise duckdb.InvalidInputException("an empty first line in place of a header")
    if len({name.lower() for name in names}) < len(names):
        raise duckdb.InvalidInputException(f"a header of {len(names)} names, not all of them different")
    return names


def sniffed_types(
    connection: duckdb.DuckDBPyConnection, source: FileSource, files: Sequence[InputFile]
) -> dict[str, str]:
    """Return the columns of CSV files and the types that their first 20,480 rows seem to have.

    Raises:
        DefinitionError: a file can't be read.
    """
    paths = ", ".join(literal(file.path) for file in files)
    options = f"{_dialect(source)}, union_by_name = true, ignore_errors = true"
    sql = f"SELECT * FROM read_csv([{paths}], {options})"
    try:
        return describe(connection, sql)
    except duckdb.Error as error:
        message = f"FileSource {source.name!r}: expected readable csv files, got: {first_line(error)}"
        raise DefinitionError(message, source.location) from None


def _dialect(source: FileSource) -> str:
    nulls = ", ".join(literal(text) for text in source.null_values)
    cut = f"delim = {literal(source.delimiter)}, quote = '\"', escape = '\"'"
    return f"header = true, skip = 0, {cut}, nullstr = [{nulls}]"


def describe(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, str]:
    """Return the columns of a query and their DuckDB types."""
    return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {sql}").fetchall()}


def first_line(error: BaseException) -> str:
    """Return what an error of DuckDB says, without the query it quotes and cut to a line's length."""
    text = str(error).strip().split("\n")[0]
    return text if len(text) <= 200 else f"{text[:199]}…"
