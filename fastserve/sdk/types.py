"""The data types of columns, join keys and features, with value semantics; and `Field`, a name with a type.

Knows how a type is written in the HTTP API's ``dataType``, not how its values are stored or encoded.

Invariants:
1. Two types are equal, and hash alike, when they mean the same; the scalar types are single objects, so
   ``is`` works.
2. ``str(dtype)`` is for messages and tables (``array<int64>``), ``repr(dtype)`` is what an author writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable


class DataType(Immutable):
    """A data type. Use the ready-made scalars, or `Array`, `Struct` and `Map`."""

    @property
    def valid(self) -> bool:
        """Whether the author wrote a type; false only while a repo's faults are being collected."""
        return True

    def to_api(self) -> dict[str, Any]:
        """Return the ``dataType`` object of the HTTP API."""
        raise NotImplementedError

    def _parts(self) -> tuple[object, ...]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataType) and type(other) is type(self) and other._parts() == self._parts()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._parts()))


class ScalarType(DataType):
    """A type without parts. Its objects are ready made: `Int64`, `Float64` and so on."""

    def __init__(self, name: str, python_name: str) -> None:
        self.name = name
        self._python_name = python_name
        self._seal()

    @property
    def valid(self) -> bool:
        """Whether the author wrote a type."""
        return self.name != _INVALID_NAME

    def to_api(self) -> dict[str, Any]:
        """Return ``{"type": name}``."""
        return {"type": self.name}

    def _parts(self) -> tuple[object, ...]:
        return (self.name,)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self._python_name

    def __reduce__(self) -> str:
        return self._python_name  # a copy or an unpickled one is the same object


_INVALID_NAME: Final = "invalid"
Int64: Final = ScalarType("int64", "Int64")
Float64: Final = ScalarType("float64", "Float64")
Float32: Final = ScalarType("float32", "Float32")
String: Final = ScalarType("string", "String")
Bool: Final = ScalarType("boolean", "Bool")  # the name that Tecton's Java client knows
Timestamp: Final = ScalarType("timestamp", "Timestamp")
Bytes: Final = ScalarType("bytes", "Bytes")  # what rows hold beside values: no feature has this type
INVALID: Final = ScalarType(_INVALID_NAME, "INVALID")  # stands where the author's fault was collected

SCALARS: Final = (Int64, Float64, Float32, String, Bool, Timestamp)
NUMERIC: Final = (Int64, Float64, Float32)

_EXPECTED: Final = "a data type such as Int64, String or Array(Int64)"
# What authors write when they mean a type of ours: Python's own types, and names.
_MEANT: Final[dict[object, str]] = {
    int: "Int64",
    float: "Float64",
    str: "String",
    bool: "Bool",
    list: "Array(…)",
}


class Array(DataType):
    """A list of values of one type; values may be null.

    Args:
        element: The type of its values.
    """

    def __init__(self, element: DataType) -> None:
        self.element = check_dtype(Checks("Array"), "element", element)
        self._seal()

    @property
    def valid(self) -> bool:
        """Whether the author wrote a type."""
        return self.element.valid

    def to_api(self) -> dict[str, Any]:
        """Return ``{"type": "array", "elementType": …}``."""
        return {"type": "array", "elementType": self.element.to_api()}

    def _parts(self) -> tuple[object, ...]:
        return (self.element,)

    def __str__(self) -> str:
        return f"array<{self.element}>"

    def __repr__(self) -> str:
        return f"Array({self.element!r})"


class Map(DataType):
    """A mapping from strings to values of one type.

    Args:
        key: `String`, for keys are those of JSON objects.
        value: The type of its values.
    """

    def __init__(self, key: DataType, value: DataType) -> None:
        checks = Checks("Map")
        self.key = check_dtype(checks, "key", key)
        self.value = check_dtype(checks, "value", value)
        if self.key.valid and self.key != String:
            checks.wrong("key", "String, for keys are JSON object keys", self.key)
            self.key = INVALID
        self._seal()

    @property
    def valid(self) -> bool:
        """Whether the author wrote a type."""
        return self.key.valid and self.value.valid

    def to_api(self) -> dict[str, Any]:
        """Return ``{"type": "map", "keyType": …, "valueType": …}``."""
        return {"type": "map", "keyType": self.key.to_api(), "valueType": self.value.to_api()}

    def _parts(self) -> tuple[object, ...]:
        return (self.key, self.value)

    def __str__(self) -> str:
        return f"map<{self.key}, {self.value}>"

    def __repr__(self) -> str:
        return f"Map({self.key!r}, {self.value!r})"


class Field(Immutable):
    """A column or a join key: a name and its type. Equal to another of the same name and type.

    Args:
        name: The column's name: letters, digits and ``_``, no digit first.
        dtype: Its type.
    """

    def __init__(self, name: str, dtype: DataType) -> None:
        checks = Checks("Field", name)
        self.name = checks.identifier("name", name)
        self.dtype = check_dtype(checks, "dtype", dtype)
        self.location: Location = checks.location
        self.valid = checks.valid and self.dtype.valid
        self._seal()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Field) and (other.name, other.dtype) == (self.name, self.dtype)

    def __hash__(self) -> int:
        return hash((self.name, self.dtype))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}"

    def __repr__(self) -> str:
        return f"Field({self.name!r}, {self.dtype!r})"


class Struct(DataType):
    """A record of named fields; the HTTP API writes it as a list in the fields' order.

    Args:
        fields: A list of `Field`, of different names.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        checks = Checks("Struct")
        self.fields = checks.instances("fields", fields, Field, "Field")
        check_unique_names(checks, "fields", self.fields)
        self._valid = checks.valid and all(field.valid for field in self.fields)
        self._seal()

    @property
    def valid(self) -> bool:
        """Whether the author wrote a type."""
        return self._valid

    def to_api(self) -> dict[str, Any]:
        """Return ``{"type": "struct", "fields": [{"name": …, "dataType": …}]}``."""
        return {
            "type": "struct",
            "fields": [{"name": field.name, "dataType": field.dtype.to_api()} for field in self.fields],
        }

    def _parts(self) -> tuple[object, ...]:
        return self.fields

    def __str__(self) -> str:
        return f"struct<{', '.join(map(str, self.fields))}>"

    def __repr__(self) -> str:
        return f"Struct({list(self.fields)!r})"


def check_dtype(checks: Checks, what: str, value: object) -> DataType:
    """Return the data type, or `INVALID` with a fault that says what was probably meant."""
    if isinstance(value, DataType):
        return value
    expected = _EXPECTED
    meant = _meant(value)
    if meant is not None:
        expected += f"; did you mean {meant}?"
    checks.wrong(what, expected, value)
    return INVALID


def check_unique_names(checks: Checks, what: str, fields: Sequence[Field]) -> None:
    """Report each name that stands twice, at the later one's line."""
    seen: set[str] = set()
    for field in fields:
        if field.valid and field.name in seen:
            checks.fault(
                f"{what}: {field.name!r} stands there twice (expected different names)", field.location
            )
        seen.add(field.name)


def _meant(value: object) -> str | None:
    if isinstance(value, str):
        lowered = value.strip().lower()
        by_name = {name.lower(): name for name in map(repr, SCALARS)}
        by_name |= {
            "int": "Int64",
            "float": "Float64",
            "str": "String",
            "boolean": "Bool",
            "double": "Float64",
        }
        return by_name.get(lowered)
    if isinstance(value, type) and issubclass(value, DataType):
        return {"Array": "Array(Int64)", "Map": "Map(String, Int64)", "Struct": "Struct([…])"}.get(
            value.__name__
        )
    return _MEANT.get(value) if isinstance(value, type) else None
