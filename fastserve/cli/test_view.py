"""`fastserve test-view VIEW --input case.json`: an on-demand view computed once, without a server or a store.

A case is an object: ``inputs`` (by source name, values by feature name), ``request_timestamp`` where the view
asks for it, and ``expected`` where the result is to be compared. A file holds one case or a list of them.
Values are written as in requests: int64 also as decimal text, times as ISO-8601 text, NaN and infinities as
text; structs by field name.

Invariants
1. What is printed is a result that passed the checks, or the error that a caller would get.
2. The exit code is 0 only when every case came out, and as expected where something was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve.cli.flags import Subparsers, add_command, add_settings, load_settings
from fastserve.errors import DefinitionError, shown
from fastserve.sdk.types import Array, DataType, Field, Float32, Float64, Int64, Map, Struct, Timestamp

if TYPE_CHECKING:
    from fastserve.sdk.on_demand import OnDemandFeatureView

    View = OnDemandFeatureView[..., Any]

FAILED = 1
MEMBERS = ("inputs", "request_timestamp", "expected")
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
RELATIVE_DIFFERENCE = 1e-9
"""So far a float may be from the expected one, which people write with fewer digits."""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "test-view", run, "compute an on-demand view once, from a file of inputs")
    parser.add_argument("view", metavar="VIEW", help="name of the on-demand view")
    parser.add_argument(
        "--input", metavar="FILE", required=True, help="JSON file with a case or a list of them; - is stdin"
    )
    add_settings(parser, ("repo",))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Compute the view for every case of the file."""
    from fastserve.cli.workspace import unknown
    from fastserve.sdk.repo import load_repo

    repo = load_repo(load_settings(arguments, environ).repo)
    view = repo.on_demand_views.get(arguments.view)
    if view is None:
        raise unknown("on-demand view", arguments.view, list(repo.on_demand_views))
    cases = _read_cases(arguments.input)
    passed = [_passes(view, case, f"case {number}: " if len(cases) > 1 else "") for number, case in cases]
    return 0 if all(passed) else FAILED


def _read_cases(path: str) -> list[tuple[int, Mapping[str, Any]]]:
    name = "standard input" if path == "-" else shown(path)
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DefinitionError(f"{name}: expected a file with JSON, got: {reason}") from None
    cases = document if isinstance(document, list) else [document]
    for number, case in enumerate(cases, 1):
        unknown = [member for member in case if member not in MEMBERS] if isinstance(case, dict) else None
        if unknown is None or unknown or not isinstance(case.get("inputs"), dict):
            expected = f"an object with inputs and at most {', '.join(MEMBERS[1:])}"
            got = shown(case) if unknown is None else shown(list(case))
            raise DefinitionError(f"{name}, case {number}: expected {expected}, got {got}")
    return list(enumerate(cases, 1))


def _passes(view: View, case: Mapping[str, Any], prefix: str) -> bool:
    """Compute one case, print what came of it, and return whether it came out as it should."""
    inputs, time = _inputs(view, case["inputs"]), _time(case.get("request_timestamp"))
    try:
        result = view.test_run(inputs, time)
    except DefinitionError:
        raise
    except Exception as error:  # noqa: BLE001 - the author's function may raise anything
        traceback.print_exception(error)
        told = f"{type(error).__name__}: {error} (when evaluating UDF {view.name})"
        print(f"fastserve: error: {prefix}{told}", file=sys.stderr)
        return False
    print(json.dumps(_as_json(result), indent=2, ensure_ascii=False))
    return "expected" not in case or _is_expected(view, case["expected"], result, prefix)


def _is_expected(view: View, expected: Any, result: Mapping[str, Any], prefix: str) -> bool:
    if not isinstance(expected, dict):
        raise DefinitionError(f"{prefix}expected: expected an object of features, got {shown(expected)}")
    same = True
    for name, value in expected.items():
        if name not in result:
            raise DefinitionError(f"{prefix}expected: expected only {', '.join(result)}, got {shown(name)}")
        wanted = _value(view.output_type(name), value)
        if not _alike(wanted, result[name]):
            got, written = shown(_as_json(result[name])), shown(value)
            print(f"fastserve: error: {prefix}{name}: expected {written}, got {got}", file=sys.stderr)
            same = False
    return same


def _alike(wanted: Any, got: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(_alike(wanted[key], got[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(map(_alike, wanted, got))
    if isinstance(got, float) and isinstance(wanted, (int, float)):
        return math.isclose(wanted, got, rel_tol=RELATIVE_DIFFERENCE)
    return bool(wanted == got) and isinstance(wanted, bool) == isinstance(got, bool)


# --- JSON in


def _inputs(view: View, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs as Python values; what isn't as the types say, the run itself refuses."""
    from fastserve.sdk.trial_run import source_fields

    known = source_fields(view)
    return {name: _members(known.get(name, {}), values) for name, values in given.items()}


def _members(fields: Mapping[str, Field], values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {
        name: _value(fields[name].dtype, value) if name in fields else value for name, value in values.items()
    }


def _value(dtype: DataType, value: Any) -> Any:
    if isinstance(value, list) and isinstance(dtype, Array):
        return [_value(dtype.element, element) for element in value]
    if isinstance(value, dict) and isinstance(dtype, Map):
        return {key: _value(dtype.value, member) for key, member in value.items()}
    if isinstance(value, dict) and isinstance(dtype, Struct):
        return _members({field.name: field for field in dtype.fields}, value)
    if isinstance(value, str):
        return _of_text(dtype, value)
    return value


def _of_text(dtype: DataType, text: str) -> Any:
    if dtype == Int64 and text.lstrip("-").isdecimal() and len(text) <= len(str(-(2**63))):
        return int(text)
    if dtype in (Float64, Float32):
        return NON_FINITE.get(text, text)
    return _time(text) if dtype == Timestamp else text


def _time(text: Any) -> datetime | None:
    from fastserve.tiles.times import parse_time_ns

    if text is None:
        return None
    try:
        time_ns = parse_time_ns(text if isinstance(text, str) else "")
    except ValueError as error:
        raise DefinitionError(f"time: {error}, got {shown(text)}") from None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1_000)


# --- JSON out


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_json(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_json(member) for member in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
