"""Whether views' files are there and have the views' columns: what `materialize` would refuse of them.

Files are found and opened as the job does it; of a CSV file the header is read, of one whose source has a
transformation in SQL the first 20,480 rows, from which its types are guessed. The SQL is compiled over an
empty table of those types. A transformation that is a function isn't called: what columns it makes, only its
run can tell.

Invariants
1. What is refused here is refused by `materialize`, in the same words.
2. No row is checked, so bad rows come to light only when the view is materialized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fastserve.errors import DefinitionError
from fastserve.ingest.columns import literal, quoted
from fastserve.ingest.files import (
    InputFile,
    connect,
    describe,
    file_relation,
    find_files,
    first_line,
    sniffed_types,
)
from fastserve.ingest.scratch import scratch_folder
from fastserve.ingest.shuffle import checked_columns
from fastserve.ingest.transform import sql_relation
from fastserve.plan.views import ViewPlan
from fastserve.sdk.sources import FileSource

MEMORY_MB = 256


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """What is true of one view's files. ``columns_checked`` is false where a function makes the columns."""

    view: str
    source: str
    files: int
    columns_checked: bool


def check_files(plans: Sequence[ViewPlan]) -> tuple[list[CheckedFiles], list[DefinitionError]]:
    """Look at the files of all views that have any; return what is right and what is wrong."""
    checked: list[CheckedFiles] = []
    wrong: list[DefinitionError] = []
    with scratch_folder() as scratch:
        for plan in plans:
            source = plan.view.batch_source
            if source is not None:
                try:
                    checked.append(_checked(plan, source, scratch))
                except DefinitionError as error:
                    wrong.append(error)
    return checked, wrong


def _checked(plan: ViewPlan, source: FileSource, scratch: Path) -> CheckedFiles:
    files = find_files(source, None, scratch)
    connection = connect(scratch, MEMORY_MB, threads=1)
    transformation = plan.view.transformation
    try:
        if transformation is None:
            relations = [file_relation(connection, source, file) for file in files]
        else:
            _make_empty_table(connection, source, _types(connection, source, files))
            relations = []
            if isinstance(transformation, str):
                relations.append(sql_relation(connection, plan.view, source, transformation, 0))
        for relation in relations:
            checked_columns(plan, relation)
    finally:
        connection.close()
    return CheckedFiles(plan.name, source.name, len(files), columns_checked=bool(relations))


def _types(
    connection: duckdb.DuckDBPyConnection, source: FileSource, files: Sequence[InputFile]
) -> dict[str, str]:
    """Return the columns and types of a source as its transformation sees it."""
    texts = [file for file in files if file.format == "csv"]
    types = sniffed_types(connection, source, texts) if texts else {}
    paths = ", ".join(literal(file.path) for file in files if file.format == "parquet")
    if not paths:
        return types
    try:
        return types | describe(connection, f"SELECT * FROM read_parquet([{paths}], union_by_name = true)")
    except duckdb.Error as error:
        message = f"FileSource {source.name!r}: expected readable files, got: {first_line(error)}"
        raise DefinitionError(message, source.location) from None


def _make_empty_table(
    connection: duckdb.DuckDBPyConnection, source: FileSource, types: dict[str, str]
) -> None:
    columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in types.items())
    connection.execute(f"CREATE TEMP TABLE {quoted(source.name)} ({columns})")
