"""What a cast of DuckDB's would bend inside an array, a struct or a map, as SQL that finds it.

A cast of a list takes each element by DuckDB's own rules: ``[1.5]`` becomes ``[2]``, and ``['x']`` becomes
``[NULL]``. A row with such a member is bad, as it would be with the same value in a column of its own. What
a scalar may be made of is an argument: `ingest.columns` says it.

Invariants
1. A fault is never null; it is true where a member that isn't null would be null or have another meaning.
2. A member of JSON text is judged by its text, as a value of a CSV file's column is.
3. Fields that the source lacks, or has besides the declared ones, are no fault: they come out null, or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastserve.sdk.types import Array, DataType, Map, Struct

JSON = "JSON"
FaultOf = Callable[[DataType, str, str], "str | None"]
"""For a scalar's type, the source's type and its SQL: the SQL of its fault, None where no value can fit."""


def member_fault(dtype: DataType, source_type: str, raw: str, scalar: FaultOf, depth: int = 0) -> str | None:
    """Return what is true where a value of ``dtype`` holds a member that can't be cast as it is.

    ``raw`` is SQL for the value in DuckDB's ``source_type``; "false" comes back where nothing can be amiss.
    None says that no member of that type can be what is declared.
    """
    if source_type == '"NULL"':
        return "false"
    if source_type == JSON:
        return _of_json(dtype, raw, scalar, depth)
    if isinstance(dtype, Array):
        element = source_type[: source_type.rfind("[")]
        return _any(f"CAST({raw} AS {element}[])", dtype.element, element, scalar, depth)
    if isinstance(dtype, Map):
        value = parts(source_type)[1]
        return _any(f"map_values({raw})", dtype.value, value, scalar, depth)
    if isinstance(dtype, Struct):
        kinds = {name.lower(): kind for name, kind in map(_named, parts(source_type))}
        faults = [
            member_fault(
                field.dtype,
                kinds[field.name.lower()],
                f"struct_extract({raw}, '{field.name}')",
                scalar,
                depth,
            )
            for field in dtype.fields
            if field.name.lower() in kinds
        ]
        return _either(faults)
    return scalar(dtype, source_type, raw)


def _of_json(dtype: DataType, raw: str, scalar: FaultOf, depth: int) -> str | None:
    if isinstance(dtype, Array):
        elements = _any(f"json_extract({raw}, '$[*]')", dtype.element, JSON, scalar, depth)
        return _either([_is_no(raw, "ARRAY"), elements])
    if isinstance(dtype, Map):
        values = _any(f"json_extract({raw}, '$.*')", dtype.value, JSON, scalar, depth)
        return _either([_is_no(raw, "OBJECT"), values])
    if isinstance(dtype, Struct):
        members = [
            member_fault(field.dtype, JSON, f"json_extract({raw}, '$.\"{field.name}\"')", scalar, depth)
            for field in dtype.fields
        ]
        return _either([_is_no(raw, "OBJECT"), *members])
    return scalar(dtype, JSON, raw)


def _is_no(raw: str, kind: str) -> str:
    """Return what is true of JSON that isn't null and no array (no object)."""
    return f"coalesce(json_type({raw}) NOT IN ('NULL', '{kind}'), false)"


def _any(values: str, dtype: DataType, source_type: str, scalar: FaultOf, depth: int) -> str | None:
    """Return what is true where one of a list's values has a fault."""
    member = f"fs_member_{depth}"
    fault = member_fault(dtype, source_type, member, scalar, depth + 1)
    if fault is None or fault == "false":
        return fault
    return f"coalesce(len(list_filter({values}, lambda {member}: {fault})) > 0, false)"


def _either(faults: Sequence[str | None]) -> str | None:
    some = [fault for fault in faults if fault != "false"]
    if None in some:
        return None
    return f"({' OR '.join(fault for fault in some if fault)})" if some else "false"


def parts(source_type: str) -> list[str]:
    """Return what stands between a type's outermost parentheses, cut at its commas.

    As in ``STRUCT("a, b" DECIMAL(3,2), c MAP(VARCHAR, BIGINT))``; quotes in names are doubled.
    """
    inner = source_type[source_type.index("(") + 1 : source_type.rindex(")")]
    found, depth, is_quoted, start = [], 0, False, 0
    for place, char in enumerate(inner):
        if char == '"':
            is_quoted = not is_quoted
        elif not is_quoted:
            depth += (char == "(") - (char == ")")
            if char == "," and depth == 0:
                found.append(inner[start:place].strip())
                start = place + 1
    return [*found, inner[start:].strip()]


def _named(part: str) -> tuple[str, str]:
    """Return a struct's field, as ``"a b" BIGINT``, as its name and type."""
    if not part.startswith('"'):
        name, _, kind = part.partition(" ")
        return name, kind
    end = 1
    while part[end] != '"' or part[end : end + 2] == '""':
        end += 2 if part[end] == '"' else 1
    return part[1:end].replace('""', '"'), part[end + 1 :].strip()
