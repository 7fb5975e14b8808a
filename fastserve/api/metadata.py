"""The ``metadata`` part of answers, and the answer of the metadata endpoint.

What doesn't vary between requests (names, types, descriptions, tags) is encoded once per set of options;
effective times and statuses are put in per request, one text per row and not per feature.

Invariants
1. Only what was asked for appears; with nothing asked there is no ``metadata`` at all (null would crash
   Tecton's client).
2. A status tells why a value is null: PRESENT is a stored null, MISSING_DATA no usable row, UNKNOWN a failed
   retrieval, TIME_OUT the budget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fastserve.api.decode import (
    INCLUDE_DATA_TYPES,
    INCLUDE_DESCRIPTIONS,
    INCLUDE_EFFECTIVE_TIMES,
    INCLUDE_NAMES,
    INCLUDE_STATUS,
    INCLUDE_TAGS,
)
from fastserve.plan.on_demand import OnDemandOutput
from fastserve.plan.service import MAX_STORE_BYTES, Output, ServicePlan
from fastserve.sdk.types import DataType
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.times import format_time

PRESENT = b'"PRESENT"'
MISSING_DATA = b'"MISSING_DATA"'
UNKNOWN = b'"UNKNOWN"'
TIME_OUT = b'"TIME_OUT"'
CACHED_PRESENT = b'"CACHED_PRESENT"'
CACHED_MISSING_DATA = b'"CACHED_MISSING_DATA"'

SIZE_EXCEEDED = "DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED"


@dataclass(slots=True)
class RowFacts:
    """What statuses and effective times of one vector come from.

    Per place the effective time, and the status of places whose rows failed or have not come.
    """

    effective_ns: Sequence[int]
    lacking: Mapping[int, bytes] = field(default_factory=dict)
    late: Collection[int] = ()
    """The on-demand views that weren't computed within the latency budget."""
    cached: Collection[int] = ()
    """The places whose rows came out of the worker's cache."""

    def status(self, place: int) -> bytes:
        """Return the status of the features of a place, as JSON text."""
        lacking = self.lacking.get(place)
        if lacking is not None:
            return lacking
        if place in self.cached:
            return CACHED_MISSING_DATA if self.effective_ns[place] == NULL_INT64 else CACHED_PRESENT
        return MISSING_DATA if self.effective_ns[place] == NULL_INT64 else PRESENT


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of one request in seconds, and the bytes that came from the store for each vector.

    ``on_demand_s`` is the part of ``server_s`` in which it waited for on-demand views after its last read.
    """

    server_s: float
    store_s: float
    store_bytes: Sequence[int]
    on_demand_s: float = 0.0


class MetadataEncoder:
    """Encodes the metadata of one service's answers."""

    def __init__(self, plan: ServicePlan) -> None:
        self._outputs = plan.outputs
        self._static: dict[int, list[bytes]] = {}

    def features(self, flags: int, rows: Sequence[RowFacts], *, batch: bool) -> bytes:
        """Return the ``features`` array of the metadata for one vector, or for the vectors of a batch."""
        static = self._static.get(flags)
        if static is None:
            static = self._static[flags] = self._static_parts(flags)
        times = self._effective_times(rows) if flags & INCLUDE_EFFECTIVE_TIMES else {}
        statuses = self._statuses(rows, batch=batch) if flags & INCLUDE_STATUS else {}
        computed = self._computed_statuses(rows, batch=batch) if flags & INCLUDE_STATUS else {}
        entries = []
        for output, fixed in zip(self._outputs, static, strict=True):
            parts = [fixed] if fixed else []
            if isinstance(output, OnDemandOutput):
                if flags & INCLUDE_STATUS:
                    parts.append(computed[output.plan])
            else:
                if output.place in times:
                    parts.append(times[output.place])
                if statuses:
                    parts.append(statuses[output.place])
            entries.append(b"{" + b",".join(parts) + b"}")
        return b"[" + b",".join(entries) + b"]"

    def _static_parts(self, flags: int) -> list[bytes]:
        entries = []
        for output in self._outputs:
            known: dict[str, Any] = {}
            if flags & INCLUDE_NAMES:
                known["name"] = output.name
            if flags & INCLUDE_DATA_TYPES:
                known["dataType"] = output.dtype.to_api()
            if flags & INCLUDE_DESCRIPTIONS:
                known["description"] = output.description
            if flags & INCLUDE_TAGS:
                known["tags"] = dict(output.tags)
            entries.append(orjson.dumps(known)[1:-1])
        return entries

    def _places(self) -> set[int]:
        return {output.place for output in self._outputs if isinstance(output, Output)}

    def _effective_times(self, rows: Sequence[RowFacts]) -> dict[int, bytes]:
        """Return the effective time per place.

        Of a batch it is the oldest, so that no row is told to be newer than it is.
        """
        texts = {}
        for place in self._places():
            times = [row.effective_ns[place] for row in rows if row.effective_ns[place] != NULL_INT64]
            if times:
                texts[place] = b'"effectiveTime":"' + format_time(min(times)).encode() + b'"'
        return texts

    def _statuses(self, rows: Sequence[RowFacts], *, batch: bool) -> dict[int, bytes]:
        if batch:
            return {p: _status_list([row.status(p) for row in rows]) for p in self._places()}
        return {p: b'"status":' + rows[0].status(p) for p in self._places()}

    def _computed_statuses(self, rows: Sequence[RowFacts], *, batch: bool) -> dict[int, bytes]:
        """Return the statuses by on-demand view: what was computed is there, whatever it was made of."""
        views = {output.plan for output in self._outputs if isinstance(output, OnDemandOutput)}
        if batch:
            return {v: _status_list([TIME_OUT if v in row.late else PRESENT for row in rows]) for v in views}
        return {v: b'"status":' + (TIME_OUT if v in rows[0].late else PRESENT) for v in views}


def _status_list(statuses: Sequence[bytes]) -> bytes:
    return b'"status":[' + b",".join(statuses) + b"]"


def slo_info(timing: Timing, store_bytes: int) -> dict[str, Any]:
    """Return one ``sloInfo`` object."""
    eligible = store_bytes <= MAX_STORE_BYTES
    info: dict[str, Any] = {
        "sloEligible": eligible,
        "sloServerTimeSeconds": round(max(0.0, timing.server_s - timing.on_demand_s), 6),
        "serverTimeSeconds": round(timing.server_s, 6),
        "storeMaxLatency": round(timing.store_s, 6),
        "storeResponseSizeBytes": store_bytes,
    }
    if not eligible:
        info["sloIneligibilityReasons"] = [SIZE_EXCEEDED]
    return info


def slo_part(timing: Timing, *, batch: bool) -> bytes:
    """Return the members of ``metadata`` that tell about the service level."""
    if not batch:
        return b'"sloInfo":' + orjson.dumps(slo_info(timing, timing.store_bytes[0]))
    each = [slo_info(timing, size) for size in timing.store_bytes]
    whole = slo_info(timing, max(timing.store_bytes)) | {"storeResponseSizeBytes": sum(timing.store_bytes)}
    return b'"sloInfo":' + orjson.dumps(each) + b',"batchSloInfo":' + orjson.dumps(whole)


def service_metadata(plan: ServicePlan) -> bytes:
    """Return the metadata endpoint's answer for a service; empty lists are left out."""
    answer: dict[str, Any] = {"featureServiceType": "DEFAULT"}
    keys = [_schema(key.name, key.dtype) for key in plan.join_keys]
    if keys:
        answer["inputJoinKeys"] = keys
    context = [_schema(field.name, field.dtype) for field in plan.context_fields]
    if context:
        answer["inputRequestContextKeys"] = context
    features = [_schema(output.name, output.dtype) for output in plan.outputs]
    if features:
        answer["featureValues"] = features
    return orjson.dumps(answer)


def _schema(name: str, dtype: DataType) -> dict[str, Any]:
    api = dtype.to_api()
    return {"name": name, "dataType": api, "type": api["type"]}
