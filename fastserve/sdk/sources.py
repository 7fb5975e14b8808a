"""Where values come from: `FileSource` (files), `PushSource` (records), `RequestSource`, `ExternalSource`.

Knows the sources' descriptions; files are opened by the batch job, not here.

Invariants:
1. A relative path is meant from the folder of the Python file that defines the source, wherever the job is
   started.
2. ``package://`` paths stay as they are until `FileSource.locations` is called, so that definitions load on a
   server where the package with the data isn't installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from fastserve.errors import DefinitionError, Location
from fastserve.sdk.checks import FREE_NAME, FREE_NAME_EXPECTED, Checks, Definition, Immutable
from fastserve.sdk.types import Field, Timestamp, check_unique_names

FileFormat = Literal["parquet", "csv"]
PACKAGE_SCHEME: Final = "package://"
SCHEMES: Final = (PACKAGE_SCHEME, "s3://", "gs://")
COMPRESSIONS: Final = (".gz", ".zst", ".zip")
NULL_VALUES: Final = ("", "NA")
REQUEST_NAME: Final = "request"


class FileSource(Definition):
    """Parquet or CSV files: one path or glob, or several.

    A path is absolute, or relative to the defining file's folder, or ``s3://``, ``gs://`` or
    ``package://<package>/<file>`` (a file inside an installed Python package, which isn't imported). The
    format is taken from the paths' extensions when it isn't given. ``null_values`` are the texts that mean
    null in a CSV file.

    Args:
        name: Also the table's name in a transformation's SQL.
        path: A path or glob, or a list of them.
        format: ``parquet`` or ``csv``; by default as the paths end.
        timestamp_field: The column with the event's time; in a CSV file ISO-8601, without a zone UTC.
        delimiter: Of CSV files.
        null_values: The texts that mean null in CSV files.
        description: For readers.
        tags: For readers.
        owner: For readers.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    paths: tuple[str, ...]
    format: FileFormat
    timestamp_field: str | None
    delimiter: str
    null_values: tuple[str, ...]

    def __init__(
        self,
        name: str,
        path: str | Path | Sequence[str | Path],
        format: FileFormat | None = None,
        timestamp_field: str | None = None,
        delimiter: str = ",",
        null_values: Sequence[str] = NULL_VALUES,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("FileSource", name)
        self.name = checks.name("name", name, FREE_NAME, FREE_NAME_EXPECTED)
        self._describe(checks, description, tags, owner)
        given: tuple[str | Path, ...] = checks.instances("path", path, (str, Path), "path or glob")
        written = [str(each) for each in given]
        folder = Path(checks.location.file).parent
        self.paths = tuple(_resolved(checks, path, folder) for path in written)
        self.format = _checked_format(checks, format, written)
        self.timestamp_field = checks.optional_text("timestamp_field", timestamp_field)
        self.delimiter = _checked_delimiter(checks, delimiter)
        self.null_values = _checked_null_values(checks, null_values)
        self._register(checks)

    def locations(self) -> tuple[str, ...]:
        """Return the paths with ``package://`` ones as paths of this machine, in the order given.

        Raises:
            DefinitionError: a package isn't installed here.
        """
        return tuple(self._location(path) for path in self.paths)

    def _location(self, path: str) -> str:
        if not path.startswith(PACKAGE_SCHEME):
            return path
        package, _, file = path.removeprefix(PACKAGE_SCHEME).partition("/")
        # For a name without dots this looks for the package and runs none of its code.
        spec = importlib.util.find_spec(package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            message = (
                f"path {path!r} (expected the Python package {package!r} to be installed here, got none)"
            )
            raise DefinitionError(f"FileSource {self.name!r}: {message}", self.location)
        found = (str(Path(folder, file)) for folder in folders if Path(folder, file).exists())
        return next(found, str(Path(folders[0], file)))


class PushSource(Definition):
    """Records that are pushed to the server, with their schema; ``batch_source`` holds their history.

    Args:
        name: What pushes name.
        schema: The list of `Field` of a record.
        batch_source: Files with the same columns, from which a view is materialized.
        timestamp_field: A Timestamp column of the schema: the event's time.
        description: For readers.
        tags: For readers.
        owner: For readers.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    schema: tuple[Field, ...]
    batch_source: FileSource | None
    timestamp_field: str | None

    def __init__(
        self,
        name: str,
        schema: Sequence[Field],
        batch_source: FileSource | None = None,
        timestamp_field: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("PushSource", name)
        self.name = checks.name("name", name, FREE_NAME, FREE_NAME_EXPECTED)
        self._describe(checks, description, tags, owner)
        self.schema = checks.instances("schema", schema, Field, "Field")
        check_unique_names(checks, "schema", self.schema)
        self.batch_source = None
        if batch_source is not None:
            self.batch_source = checks.instance("batch_source", batch_source, FileSource, "a FileSource")
        self.timestamp_field = checks.optional_text("timestamp_field", timestamp_field)
        if self.timestamp_field is not None and checks.valid:
            check_timestamp_column(checks, self.timestamp_field, self.schema)
        self._register(checks, parts_valid=all(field.valid for field in self.schema))

    def column(self, name: str) -> Field | None:
        """Return the column of that name, if there is one."""
        return next((field for field in self.schema if field.name == name), None)


class ExternalSource(Definition):
    """Rows that somebody else writes into the view's table: fastserve only reads them.

    For views of ordinary tables (`AttributesFormat`, `FeastFormat`).

    Args:
        name: For readers.
        timestamp_field: Says that rows have a time, which a ``ttl`` counts from.
        description: For readers.
        tags: For readers.
        owner: For readers.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    timestamp_field: str | None

    def __init__(
        self,
        name: str,
        timestamp_field: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("ExternalSource", name)
        self.name = checks.name("name", name, FREE_NAME, FREE_NAME_EXPECTED)
        self._describe(checks, description, tags, owner)
        self.timestamp_field = checks.optional_text("timestamp_field", timestamp_field)
        self._register(checks)


Source = FileSource | PushSource | ExternalSource


class RequestSource(Immutable):
    """Values that come with each request (its request context), with their schema.

    It isn't a definition of the repo's: what requests must hold is settled per service, by the fields of all
    request sources that its on-demand views read.

    Args:
        schema: The list of `Field` that must come.
        name: What `Calculation` and ``test_run`` call it.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    name: str
    schema: tuple[Field, ...]
    location: Location
    valid: bool

    def __init__(self, schema: Sequence[Field], name: str = REQUEST_NAME) -> None:
        checks = Checks("RequestSource", None if name == REQUEST_NAME else name)
        self.name = checks.identifier("name", name)
        self.schema = checks.instances("schema", schema, Field, "Field")
        check_unique_names(checks, "schema", self.schema)
        self.location = checks.location
        self.valid = checks.valid and all(field.valid for field in self.schema)
        self._seal()

    def __repr__(self) -> str:
        return f"RequestSource({self.name!r})"


def check_timestamp_column(checks: Checks, name: str, schema: Sequence[Field]) -> None:
    """Report a timestamp_field that isn't a Timestamp column of the schema."""
    columns = {field.name: field for field in schema}
    if name not in columns:
        checks.wrong("timestamp_field", f"a column of the schema: {', '.join(columns)}", name)
    elif columns[name].valid and columns[name].dtype != Timestamp:
        checks.wrong(f"timestamp_field {name!r}", "a column of type Timestamp", columns[name].dtype)


def _resolved(checks: Checks, path: str, folder: Path) -> str:
    scheme, separator, rest = path.partition("://")
    if separator:
        _check_url(checks, path, scheme + separator, rest)
        return path
    if not path.strip():
        checks.wrong("path", "a path or glob", path)
        return path
    return str(folder / path)  # an absolute path stays what it is


def _check_url(checks: Checks, path: str, scheme: str, rest: str) -> None:
    package, _, file = rest.partition("/")
    if scheme not in SCHEMES:
        checks.wrong("path", f"a path, or one that begins with {', '.join(SCHEMES)}", path)
    elif not package or not file:
        checks.wrong("path", f"{scheme}<{'package' if scheme == PACKAGE_SCHEME else 'bucket'}>/<file>", path)
    elif scheme == PACKAGE_SCHEME and not (package.isidentifier() and ".." not in file.split("/")):
        checks.wrong("path", f"{PACKAGE_SCHEME}<top-level package>/<file inside it>", path)


def _checked_format(checks: Checks, given: object, paths: Sequence[str]) -> FileFormat:
    if given is not None:
        return "parquet" if checks.choice("format", given, ("parquet", "csv")) == "parquet" else "csv"
    formats = {_format_of(path) for path in paths}
    if formats == {"parquet"}:
        return "parquet"
    if formats and formats != {"csv"}:
        checks.wrong(
            "format",
            '"parquet" or "csv", as the paths don\'t all end in .parquet, or all in .csv '
            f"(with {', '.join(COMPRESSIONS)} after it or not)",
            None,
        )
    return "csv"


def _format_of(path: str) -> FileFormat | None:
    name = path.lower()
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return "csv" if name.endswith(".csv") else None


def _checked_delimiter(checks: Checks, value: object) -> str:
    if isinstance(value, str) and len(value) == 1 and value.isascii() and value not in '"\r\n':
        return value
    checks.wrong("delimiter", 'one ASCII character such as ",", no quote and no line end', value)
    return ","


def _checked_null_values(checks: Checks, value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(text, str) for text in value):
        return tuple(value)
    checks.wrong("null_values", "a list of str", value)
    return NULL_VALUES
