"""Columns for on-demand views in the modes ``numpy`` and ``pandas``: Python values in, checked values out.

For whoever evaluates such views (`trial_run`, the serving layer). NumPy is imported with this module, pandas
by the functions that make data frames: who only loads definitions must not import it.

A source is a dict of one array per feature, one element per request of the batch:

- Float64, Float32: float64 or float32; null is NaN.
- Int64, Bool: `NullableArray`, a `numpy.ma.MaskedArray` of int64 or bool; null is masked.
- Timestamp: datetime64[ns], in UTC; null is NaT.
- String, Array, Struct, Map: object arrays of the values that mode ``python`` has; null is None.

A result is a dict of arrays likewise. In a data frame, Int64 and Bool are pandas' Int64 and boolean,
Timestamp is datetime64[ns, UTC].

Invariants
1. A null never turns into a value on the way to the function, nor back: what NumPy would do to a masked array
   without regard to its mask either regards it here or is refused.
2. Errors are those of `values`: TypeError and ValueError, which name the feature.
3. Checked values are those of `values`, whatever the mode: NaN in a float column is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fastserve.errors import shown
from fastserve.sdk.types import Bool, DataType, Field, Float32, Float64, Int64, Timestamp
from fastserve.sdk.values import TIME_FIRST, TIME_LAST, value_checker, wrong_type, wrong_value

Array = npt.NDArray[Any]
Columns = dict[str, Array]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class NullableArray(np.ma.MaskedArray):
    """A masked array that NumPy's own functions don't strip of its mask.

    ``np.where(ages > 17, 1, 0)`` of a plain masked array takes what lies under the mask for a value.
    """

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        regarding = _REGARDING_MASKS.get(function)
        if regarding is not None:
            return _as_nullable(regarding(*args, **kwargs))
        if function not in _SAFE and _holds_null(args, kwargs):
            name = getattr(function, "__name__", "the function")
            raise TypeError(f"numpy.{name} doesn't regard nulls: fill them before, as in x.filled(0)")
        return super().__array_function__(function, types, args, kwargs)


def _of_that_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its first argument taken for a plain array, of which only the shape counts."""
    return lambda array, *args, **kwargs: function(np.ma.getdata(array), *args, **kwargs)


_REGARDING_MASKS: Final[dict[Any, Callable[..., Any]]] = {
    getattr(np, name): getattr(np.ma, name)
    for name in (
        "where",
        "concatenate",
        "stack",
        "hstack",
        "vstack",
        "column_stack",
        "choose",
        "average",
        "isin",
    )
} | {
    function: _of_that_shape(function)
    for function in (np.empty_like, np.full_like, np.ones_like, np.zeros_like)
}
# They call the array's method of that name, which regards the mask, or look at its shape only.
_SAFE: Final = frozenset(
    getattr(np, name)
    for name in (
        *("all", "any", "argmax", "argmin", "clip", "compress", "copy", "cumprod", "cumsum", "max", "mean"),
        *("min", "prod", "ravel", "repeat", "reshape", "round", "squeeze", "std", "sum", "swapaxes", "take"),
        *("transpose", "var", "ndim", "shape", "size"),
    )
)


def _as_nullable(result: Any) -> Any:
    is_plain = isinstance(result, np.ma.MaskedArray) and not isinstance(result, NullableArray)
    return result.view(NullableArray) if is_plain else result


def _holds_null(args: Iterable[Any], kwargs: Mapping[str, Any]) -> bool:
    return any(_is_null_in(argument) for argument in (*args, *kwargs.values()))


def _is_null_in(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(_is_null_in(member) for member in argument)
    return isinstance(argument, np.ma.MaskedArray) and bool(np.ma.getmaskarray(argument).any())


# --- in


def input_columns(fields: Sequence[Field], rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the columns of one source; each row holds checked values by name."""
    return {field.name: column(field.dtype, [row[field.name] for row in rows]) for field in fields}


def column(dtype: DataType, values: Sequence[Any]) -> Array:
    """Return the column of checked values."""
    if dtype in (Float64, Float32):
        floats = [np.nan if value is None else value for value in values]
        return np.array(floats, np.float32 if dtype == Float32 else np.float64)
    if dtype in (Int64, Bool):
        nulls = np.array([value is None for value in values], np.bool_)
        filled = [0 if value is None else value for value in values]
        return nullable(np.array(filled, np.int64 if dtype == Int64 else np.bool_), nulls)
    if dtype == Timestamp:
        return np.array([_NAT if value is None else _nanoseconds(value) for value in values], "M8[ns]")
    objects = np.empty(len(values), np.object_)
    for position, value in enumerate(values):  # a slice assignment would look into lists of equal lengths
        objects[position] = value
    return objects


def nullable(data: Array, nulls: Array) -> NullableArray:
    """Return a column of integers or booleans; ``nulls`` is as long, true where there is no value."""
    return NullableArray(data, mask=nulls)


_NAT: Final = np.datetime64("NaT", "ns")


def _nanoseconds(moment: datetime) -> np.datetime64:
    return np.datetime64((moment - EPOCH) // MICROSECOND * 1_000, "ns")


def frame(fields: Sequence[Field], columns: Columns) -> Any:
    """Return the columns as a data frame; needs pandas."""
    import pandas as pd

    series = {field.name: _series(pd, field.dtype, columns[field.name]) for field in fields}
    return pd.DataFrame(series)


def _series(pd: Any, dtype: DataType, values: Array) -> Any:
    if isinstance(values, np.ma.MaskedArray):
        kind = pd.arrays.IntegerArray if dtype == Int64 else pd.arrays.BooleanArray
        data, nulls = np.ma.getdata(values), np.ma.getmaskarray(values)
        return pd.Series(kind(np.array(data), np.array(nulls)))
    if dtype == Timestamp:
        return pd.Series(values).dt.tz_localize("UTC")
    return pd.Series(values, dtype=values.dtype)


# --- out


def checked_columns(fields: Sequence[Field], result: Any, count: int) -> list[list[Any]]:
    """Return per field the ``count`` checked values out of a function's result: a dict of arrays or a frame.

    Raises:
        TypeError: the result is neither, a feature is missing or too many, or a column is of another type.
        ValueError: a column is of another length, or holds a value that its type can't.
    """
    names = [field.name for field in fields]
    given = list(_columns_of(result, names))
    for name in names:
        if name not in given:
            raise TypeError(f"feature `{name}`: expected in the result, got {shown(given)}")
    for name in given:
        if name not in names:
            raise TypeError(f"result: expected only {shown(', '.join(names))}, got {shown(name)} as well")
    return [_checked(field, result[field.name], count) for field in fields]


def _columns_of(result: Any, names: Sequence[str]) -> Iterable[Any]:
    if isinstance(result, Mapping):
        return result.keys()
    if _is_of_pandas(result) and hasattr(result, "columns"):
        return list(result.columns)
    raise wrong_type("result", f"columns {shown(', '.join(names))}", result)


def _is_of_pandas(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


def _checked(field: Field, given: Any, count: int) -> list[Any]:
    what = f"feature `{field.name}`"
    if _is_of_pandas(given) and hasattr(given, "to_numpy"):
        return _checked_objects(field, what, _objects_of_series(given), count)
    if not isinstance(given, np.ndarray):
        if not isinstance(given, list):
            raise wrong_type(what, f"an array of {count} values, one per request", given)
        return _checked_objects(field, what, given, count)
    if given.ndim == 0 or len(given) != count:
        raise wrong_value(what, f"an array of {count} values, one per request", given.shape)
    if given.ndim > 1 or given.dtype.kind in "OUS":
        return _checked_objects(field, what, _objects(given), count)
    nulls = np.ma.getmaskarray(given) if isinstance(given, np.ma.MaskedArray) else None
    return _NATIVE.get(field.dtype, _none_native)(field, what, np.asarray(given), nulls)


def _objects_of_series(series: Any) -> list[Any]:
    series = _in_line_order(series)
    nulls = series.isna()
    return [None if null else value for value, null in zip(series.tolist(), nulls.tolist(), strict=True)]


def _in_line_order(series: Any) -> Any:
    """Return a series in the order of the lines, where its index says which those are."""
    index = getattr(series, "index", None)  # an array of pandas has none
    if index is None or getattr(index, "inferred_type", None) != "integer":
        return series
    labels = index.to_numpy()
    lines = np.arange(len(labels))
    is_other_order = not np.array_equal(labels, lines) and np.array_equal(np.sort(labels), lines)
    return series.sort_index() if is_other_order else series


def _objects(given: Array) -> list[Any]:
    values: list[Any] = given.tolist()  # of a masked array, too: None where it is masked
    return values


def _checked_objects(field: Field, what: str, values: Sequence[Any], count: int) -> list[Any]:
    if len(values) != count:
        raise wrong_value(what, f"{count} values, one per request", len(values))
    check = value_checker(field.dtype, what, nan=True)
    checked = [check(value) for value in values]
    if field.dtype in (Float64, Float32):
        return [None if value != value else value for value in checked]  # noqa: PLR0124 - NaN isn't
    return checked


def _with_nulls(values: list[Any], nulls: Array | None) -> list[Any]:
    if nulls is None or not nulls.any():
        return values
    for position in np.flatnonzero(nulls).tolist():
        values[position] = None
    return values


def _floats(field: Field, what: str, data: Array, nulls: Array | None) -> list[Any]:
    if data.dtype.kind not in "fiu":
        raise wrong_type(what, f"an array of {field.dtype}", data)
    floats = data.astype(np.float64, copy=False)
    if field.dtype == Float32:
        with np.errstate(over="ignore"):
            single = floats.astype(np.float32).astype(np.float64)
        grown = np.isinf(single) & ~np.isinf(floats)
        if nulls is not None:
            grown &= ~nulls
        if grown.any():
            raise wrong_value(what, "float32 that is not too large", floats[grown][0])
        floats = single
    missing = np.isnan(floats)
    return _with_nulls(floats.tolist(), missing if nulls is None else missing | nulls)


def _ints(_field: Field, what: str, data: Array, nulls: Array | None) -> list[Any]:
    if data.dtype.kind not in "iu":
        raise wrong_type(what, "an array of int64", data)
    if data.dtype == np.uint64:
        usable = data if nulls is None else data[~nulls]
        if usable.size and usable.max() > np.iinfo(np.int64).max:
            raise wrong_value(what, "int64 (-2^63 to 2^63 - 1)", usable.max())
    return _with_nulls(data.tolist(), nulls)


def _bools(_field: Field, what: str, data: Array, nulls: Array | None) -> list[Any]:
    if data.dtype.kind != "b":
        raise wrong_type(what, "an array of bool", data)
    return _with_nulls(data.tolist(), nulls)


def _times(_field: Field, what: str, data: Array, nulls: Array | None) -> list[Any]:
    if data.dtype.kind != "M":
        raise wrong_type(what, "an array of datetime64", data)
    missing = np.isnat(data) if nulls is None else np.isnat(data) | nulls
    given = data[~missing]
    years = given.astype("M8[Y]").astype(np.int64) + _EPOCH_YEAR  # no unit is coarser, so nothing wraps
    if years.size and (years.min() < TIME_FIRST.year or years.max() > TIME_LAST.year):
        raise wrong_value(what, "timestamp in the years 1678 to 2261", data)
    present = given.astype("M8[us]")
    if present.size and (present.min() < _TIME_FIRST or present.max() >= _TIME_LAST):
        raise wrong_value(what, "timestamp in the years 1678 to 2261", data)
    values: list[Any] = [None] * len(data)
    for position, moment in zip(np.flatnonzero(~missing).tolist(), present.tolist(), strict=True):
        values[position] = moment.replace(tzinfo=UTC)
    return values


_EPOCH_YEAR: Final = 1970
_TIME_FIRST: Final = np.datetime64(TIME_FIRST.replace(tzinfo=None), "us")
_TIME_LAST: Final = np.datetime64(TIME_LAST.replace(tzinfo=None), "us")


def _none_native(field: Field, what: str, data: Array, _nulls: Array | None) -> list[Any]:
    raise wrong_type(what, f"an object array of {field.dtype}", data)


_NATIVE: Final[dict[DataType, Callable[[Field, str, Array, Array | None], list[Any]]]] = {
    Float64: _floats,
    Float32: _floats,
    Int64: _ints,
    Bool: _bools,
    Timestamp: _times,
}
