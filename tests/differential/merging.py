"""Compacted rows merged both ways, as plain Python values: what tests compare with the naive twin.

Lays the rows of one or several views side by side as serving does, asks `MergePlan.fast`, `MergePlan.masked`
and the loop in C, where it is compiled, and holds them against each other to the bit before it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.sdk.types import Bool
from fastserve.tiles.aggregates import CompactedSchema
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.merge import CONSTANT_BITS, MergePlan
from fastserve.tiles.write import encode_words, neutral_words

Words = npt.NDArray[np.int64]


def null_row(schema: CompactedSchema, as_of_ns: int) -> bytes:
    """Return the row that stands for an absent one."""
    return encode_words(schema, neutral_words(schema, 1), as_of_ns)[0]


class Merging:
    """The merge plan of services that read these views, every feature of each."""

    def __init__(self, *schemas: CompactedSchema) -> None:
        self.schemas = schemas
        places = []
        base = 0
        for number, schema in enumerate(schemas):
            places.append((number, base, schema, schema.features))
            base += schema.layout.fixed_words
        self.plan = MergePlan(places, base)
        self.loop = self.plan.loop(len(schemas))

    def matrix(self, requests: Sequence[Sequence[bytes]]) -> Words:
        """Return the vector rows of requests that read one row of each view."""
        constants = np.array(CONSTANT_BITS, "<i8").tobytes()
        rows = b"".join(b"".join(rows) + constants for rows in requests)
        return np.frombuffer(rows, "<i8").reshape(len(requests), -1)

    def fast(
        self, requests: Sequence[Sequence[bytes]], as_ofs_ns: Sequence[int], time_ns: int
    ) -> list[list[dict[str, Any]]]:
        """Answer requests whose rows share one as_of per view; checked against the masked way."""
        as_of = np.array(as_ofs_ns, np.int64)
        floats, ints = self.plan.fast(self.matrix(requests), self.plan.epoch(as_of, time_ns))
        fast = self.values(floats, ints)
        masked = self.masked(requests, [as_ofs_ns] * len(requests), time_ns)
        assert repr(fast) == repr(masked)
        return fast

    def masked(
        self, requests: Sequence[Sequence[bytes]], as_ofs_ns: Sequence[Sequence[int]], time_ns: int
    ) -> list[list[dict[str, Any]]]:
        """Answer requests whose rows have any as_of."""
        as_of = np.array(as_ofs_ns, np.int64).reshape(len(requests), len(self.schemas))
        masked = self.values(*self.plan.masked(self.matrix(requests), as_of, time_ns))
        looped = self.loop.merged(self.matrix(requests), as_of, time_ns)
        assert looped is None or repr(self.values(*looped)) == repr(masked)
        return masked

    def values(self, floats: npt.NDArray[np.float64], ints: Words) -> list[list[dict[str, Any]]]:
        """Return, request by request and view by view, the features by name; None is null."""
        null_floats = floats.view("<i8") == NULL_FLOAT64_BITS
        answers = []
        for request in range(len(floats)):
            views = []
            for schema, places in zip(self.schemas, self.plan.feature_places, strict=True):
                values: dict[str, Any] = {}
                for feature, place in zip(schema.features, places, strict=True):
                    if place.is_float:
                        null = bool(null_floats[request, place.index])
                        values[feature.spec.name] = None if null else float(floats[request, place.index])
                    else:
                        number = int(ints[request, place.index])
                        kind = bool if feature.spec.output_type == Bool else int
                        values[feature.spec.name] = None if number == NULL_INT64 else kind(number)
                views.append(values)
            answers.append(views)
        return answers
