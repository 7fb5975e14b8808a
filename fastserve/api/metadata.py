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

from collections.abc import Mapping, Sequence
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
from fastserve.api.encode import output_schema
from fastserve.plan.service import MAX_STORE_BYTES, ServicePlan
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.times import format_time

PRESENT = b'"PRESENT"'
MISSING_DATA = b'"MISSING_DATA"'
UNKNOWN = b'"UNKNOWN"'
TIME_OUT = b'"TIME_OUT"'

SIZE_EXCEEDED = "DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED"


@dataclass(slots=True)
class RowFacts:
    """What statuses and effective times of one vector come from.

    Per place the effective time, and the status of places whose rows failed or have not come.
    """

    effective_ns: Sequence[int]
    lacking: Mapping[int, bytes] = field(default_factory=dict)

    def status(self, place: int) -> bytes:
        """Return the status of the features of a place, as JSON text."""
        lacking = self.lacking.get(place)
        if lacking is not None:
            return lacking
        return MISSING_DATA if self.effective_ns[place] == NULL_INT64 else PRESENT


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of one request in seconds, and the bytes that came from the store for each vector."""

    server_s: float
    store_s: float
    store_bytes: Sequence[int]


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
        entries = []
        for output, fixed in zip(self._outputs, static, strict=True):
            parts = [fixed] if fixed else []
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
        return {output.place for output in self._outputs}

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
            return {
                p: b'"status":[' + b",".join([row.status(p) for row in rows]) + b"]" for p in self._places()
            }
        return {p: b'"status":' + rows[0].status(p) for p in self._places()}


def slo_info(timing: Timing, store_bytes: int) -> dict[str, Any]:
    """Return one ``sloInfo`` object."""
    eligible = store_bytes <= MAX_STORE_BYTES
    info: dict[str, Any] = {
        "sloEligible": eligible,
        # Everything is server time until on-demand code runs after the last read: its wait is what would be
        # taken off.
        "sloServerTimeSeconds": round(timing.server_s, 6),
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
    keys = [
        {"name": key.name, "dataType": key.dtype.to_api(), "type": key.dtype.to_api()["type"]}
        for key in plan.join_keys
    ]
    if keys:
        answer["inputJoinKeys"] = keys
    features = [output_schema(output) for output in plan.outputs]
    if features:
        answer["featureValues"] = features
    return orjson.dumps(answer)
