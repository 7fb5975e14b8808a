"""Features that are answered as JSON text made at the request: wide aggregates, and series of any aggregate.

A wide component's IRs stand in the variable-width part of a row, one for each slot. Those of the slots that
are live at the request's time, and those of stream tiles behind them, are merged and finalized, row by row in
Python (`perf/micro/wide.py` says what each function takes). The elements of a series of numbers come merged,
as other numbers do; here they are only written side by side.

Which slots are live is worked out once for each view and ``as_of``, and holds until a window moves.

Invariants
1. A row's IRs are read only where its ends ascend and it ends with the last one's.
2. A row with an IR that can't be read is told to the caller, who evaluates without the whole row: no feature
   of it is answered beside one that is broken.
3. A feature is null where its row is; else it is what the IRs that count give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import orjson

from fastserve.errors import ECHO_LIMIT, FastserveError
from fastserve.plan.service import Place, ServicePlan
from fastserve.sdk.types import Array, Bool, DataType, Float32, Timestamp
from fastserve.serving.columns import Merged, output_storage
from fastserve.serving.transport import RowTransport
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64, Storage
from fastserve.tiles.merge import FeaturePlace, MergePlan, Words
from fastserve.tiles.rows import RowError, bytes_values
from fastserve.tiles.times import format_time
from fastserve.tiles.wide import IR_ERRORS, NULL, WideFunction, answering
from fastserve.tiles.wide_values import codec_of, number_token

Texts = list[list[bytes]]
Piece = tuple[bytes, list[int]]
"""The IRs of one row behind each other, and 0 and where each ends."""
Pieces = list[list[Piece | None]]
"""Line by line and wide place by wide place; None where there is no row."""

TileIRs = Mapping[tuple[int, int], Mapping[int, Sequence[bytes]]]
"""IRs of stream tiles that count beside a row, by (line, place number) and wide component; none is empty."""

NO_TILES: TileIRs = {}
NO_IRS: Mapping[int, Sequence[bytes]] = {}
MAX_REMEMBERED = 64
"""So many different ``as_of`` of one view are remembered: during a batch job there are two."""
NUMPY = orjson.OPT_SERIALIZE_NUMPY


class BrokenRowsError(FastserveError):
    """Rows that hold IRs which can't be read: the reason by (line, place)."""

    def __init__(self, rows: dict[tuple[int, int], str]) -> None:
        super().__init__(next(iter(rows.values())))
        self.rows = rows


@dataclass(frozen=True, slots=True)
class _WideElement:
    """One window of a wide component: ``first`` is its first column of bytes in the row."""

    function: WideFunction
    component: int
    first: int


@dataclass(frozen=True, slots=True)
class _Feature:
    """A feature, where its text stands, and what it is made of: wide elements, or numbers of a series."""

    text: int
    is_series: bool
    wide: tuple[_WideElement, ...] = ()
    numbers: _Numbers | None = None


@dataclass(slots=True)
class _Live:
    """From when until when which columns count, element by element of a place's wide features."""

    start_ns: int
    end_ns: int
    columns: list[list[list[int]]]


@dataclass(slots=True)
class _WidePlace:
    """A place with such features. ``fixed_length`` is in the transport's units."""

    place: Place
    fixed_length: int
    ends: slice
    features: list[_Feature]
    remembered: dict[int, _Live] = field(default_factory=dict)

    def live(self, as_of_ns: int, now_ns: int) -> list[list[list[int]]]:
        """Return, feature by feature and element by element, the columns of the slots that count."""
        found = self.remembered.get(as_of_ns)
        if found is not None and found.start_ns <= now_ns < found.end_ns:
            return found.columns
        if len(self.remembered) >= MAX_REMEMBERED:
            self.remembered.clear()
        schema = self.place.view.schema
        wide = () if schema is None else schema.wide
        columns = [
            [
                [e.first + slot for slot in wide[e.component].window.live_slots(as_of_ns, now_ns)]
                for e in feature.wide
            ]
            for feature in self.features
        ]
        moments = [w.window.changes_ns(max(now_ns, as_of_ns)) for w in wide]
        self.remembered[as_of_ns] = _Live(now_ns, min(moments, default=now_ns), columns)
        return columns


class WideAnswers:
    """Answers the wide features and the series of one service."""

    def __init__(self, plan: ServicePlan, transport: RowTransport, merge: MergePlan | None) -> None:
        self._unwrap = transport.unwrap
        self._places: list[_WidePlace] = []
        ends_at: list[int] = []
        for place in plan.places:
            features = _features(plan, place, merge)
            if features:
                columns = place.view.layout.bytes_columns
                span = slice(len(ends_at), len(ends_at) + len(columns))
                ends_at += [(place.word * 8 + column.offset) // 4 for column in columns]
                length = transport.fixed_length(place.view.layout)
                self._places.append(_WidePlace(place, length, span, features))
        self._ends_at = np.array(ends_at, np.intp)

    def __bool__(self) -> bool:
        """Whether the service has such features."""
        return bool(self._places)

    # --- out of rows ----------------------------------------------------------------------------------------

    def cut(self, lines: Sequence[Sequence[Any]], matrix: Words, effective: Words) -> Pieces:
        """Return the IRs of plain rows.

        Raises:
            RowError: a row's IRs don't fit it.
            ValueError: a row's variable-width part isn't base64.
        """
        unwrap = self._unwrap
        result: Pieces = []
        all_ends = matrix.view("<u4").take(self._ends_at, axis=1).tolist()
        for line, ends, times in zip(lines, all_ends, effective.tolist(), strict=True):
            pieces: list[Piece | None] = []
            for wide in self._places:
                number = wide.place.number
                if times[number] == NULL_INT64:
                    pieces.append(None)
                    continue
                rest = unwrap(line[number][wide.fixed_length :])
                cuts = [0, *ends[wide.ends]]
                if cuts != sorted(cuts) or not cuts[-1] <= len(rest) < cuts[-1] + 3 or len(rest) % 3:
                    raise RowError(f"expected {cuts[-1]} bytes of wide values and padding, got {len(rest)}")
                pieces.append((rest, cuts))
            result.append(pieces)
        return result

    def of_rows(self, lines: Sequence[Sequence[bytes]], effective: Words) -> Pieces:
        """Return the IRs of repaired rows, which may have flags."""
        return [
            [
                None
                if times[wide.place.number] == NULL_INT64
                else _piece(bytes_values(wide.place.view.layout, line[wide.place.number]).values())
                for wide in self._places
            ]
            for line, times in zip(lines, effective.tolist(), strict=True)
        ]

    # --- to texts -------------------------------------------------------------------------------------------

    def fill(
        self,
        texts: Texts,
        pieces: Pieces,
        as_of: Words,
        present: Words,
        merged: Merged,
        now_ns: int,
        tiles: TileIRs = NO_TILES,
    ) -> None:
        """Put the features' texts in their places.

        ``as_of`` has the rows' own times, ``present`` those with stream tiles, both of shape (lines, places)
        and the smallest int64 where there is nothing.

        Raises:
            BrokenRowsError: some rows hold IRs that can't be read; no text is to be used.
        """
        broken: dict[tuple[int, int], str] = {}
        times, there = as_of.tolist(), present.tolist()
        for number, line in enumerate(pieces):
            for wide, piece in zip(self._places, line, strict=True):
                place = wide.place.number
                if there[number][place] == NULL_INT64:
                    for feature in wide.features:
                        texts[number][feature.text] = NULL
                    continue
                row_ns = times[number][place]
                live = None if piece is None or row_ns == NULL_INT64 else wide.live(row_ns, now_ns)
                more = tiles.get((number, place), NO_IRS)
                try:
                    _fill_row(texts[number], wide.features, piece, live, more, merged, number)
                except IR_ERRORS as error:
                    broken[number, place] = f"a wide value: {str(error)[:ECHO_LIMIT]}"
        if broken:
            raise BrokenRowsError(broken)


def _fill_row(
    texts: list[bytes],
    features: Sequence[_Feature],
    piece: Piece | None,
    live: list[list[list[int]]] | None,
    more: Mapping[int, Sequence[bytes]],
    merged: Merged,
    line: int,
) -> None:
    raw, cuts = piece or (b"", [])
    for number, feature in enumerate(features):
        if feature.numbers is not None:
            texts[feature.text] = feature.numbers.text(merged, line)
            continue
        answers = []
        for place, element in enumerate(feature.wide):
            columns = [] if live is None else live[number][place]
            irs = [raw[cuts[c] : cuts[c + 1]] for c in columns if cuts[c] != cuts[c + 1]]
            if more and element.component in more:
                irs += more[element.component]
            answers.append(element.function.answer(irs) if irs else NULL)
        texts[feature.text] = b"[" + b",".join(answers) + b"]" if feature.is_series else answers[0]


def _piece(irs: Iterable[bytes]) -> Piece:
    every = list(irs)
    return b"".join(every), list(accumulate(map(len, every), initial=0))


# --- compile ------------------------------------------------------------------------------------------------


def _features(plan: ServicePlan, place: Place, merge: MergePlan | None) -> list[_Feature]:
    """Return the features of a place whose texts are made here, in the order of the plan's inputs."""
    features: list[_Feature] = []
    merged = _merged_places(plan, place, merge)
    text = -1
    for output in plan.inputs:
        if output_storage(output) is not Storage.JSON:
            continue
        text += 1
        source = output.source
        if output.place == place.number and isinstance(source, AggregateFeature):
            features.append(_feature(place, text, source, merged.get(id(source))))
    return features


def _merged_places(plan: ServicePlan, place: Place, merge: MergePlan | None) -> dict[int, FeaturePlace]:
    """Return where the merge puts each of a place's features, by identity."""
    if merge is None or place.number not in merge.place_numbers.tolist():
        return {}
    sources = [output.source for output in plan.inputs if output.place == place.number]
    features = [source for source in sources if isinstance(source, AggregateFeature)]
    found = merge.feature_places[merge.place_numbers.tolist().index(place.number)]
    return {id(feature): at for feature, at in zip(features, found, strict=True)}


def _feature(place: Place, text: int, source: AggregateFeature, at: FeaturePlace | None) -> _Feature:
    elements = source.elements or (source,)
    wide = tuple(_wide_element(place, element) for element in elements if element.wide is not None)
    if wide or at is None:
        return _Feature(text, bool(source.elements), wide)
    return _Feature(text, True, (), _Numbers(source, at.elements))


def _wide_element(place: Place, element: AggregateFeature) -> _WideElement:
    schema, number = place.view.schema, element.wide
    before = () if schema is None else schema.wide[:number]
    return _WideElement(answering(element.spec), number or 0, sum(w.window.slots for w in before))


class _Numbers:
    """The elements of a series of numbers, as the merge gives them."""

    def __init__(self, source: AggregateFeature, places: Sequence[FeaturePlace]) -> None:
        dtype = source.spec.output_type
        self._dtype: DataType = dtype.element if isinstance(dtype, Array) else dtype
        self._is_float = places[0].is_float
        self._is_count = source.spec.function == "count"
        self._at = np.array([place.index for place in places], np.intp)

    def text(self, merged: Merged, line: int) -> bytes:
        """Return the JSON array of one line."""
        if self._is_float:
            return self._floats(merged[0][line].take(self._at))
        values: list[int] = merged[1][line].take(self._at).tolist()
        empty = 0 if self._is_count else NULL_INT64
        return b"[" + b",".join([NULL if v == empty else self._token(v) for v in values]) + b"]"

    def _floats(self, values: Any) -> bytes:
        nulls = values.view("<i8") == NULL_FLOAT64_BITS
        if (np.isfinite(values) | nulls).all():
            numbers = values.astype(np.float32) if self._dtype == Float32 else values
            return orjson.dumps(numbers, option=NUMPY)
        token = number_token if self._dtype != Float32 else _single_token
        return (
            b"["
            + b",".join(
                [NULL if null else token(v) for v, null in zip(values.tolist(), nulls.tolist(), strict=True)]
            )
            + b"]"
        )

    def _token(self, value: int) -> bytes:
        if self._dtype == Timestamp:
            return b'"' + format_time(value).encode() + b'"'
        if self._dtype == Bool:
            return b"true" if value else b"false"
        return b'"%d"' % value


def _single_token(value: float) -> bytes:
    codec = codec_of(Float32)
    return codec.token(codec.keys([value])[0])
