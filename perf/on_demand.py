"""The measured on-demand services: the rows that they read, the requests they are sent, what must come back.

Knows no load and no server; what a service computes stands here a second time, in other words.

Invariants:
1. A user's places follow from the number of the row that the stand-in answers its key with, what a request
   brings from its key, and a request's second key from its first.
2. Sets have `SET_SIZE` strings of one length, so that every request has the same number of bytes.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from fastserve.tiles.rows import encode_row
from perf.load.key_laws import partner_key
from perf.load.tables import row_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastserve.plan.service import ServicePlan
    from fastserve.plan.views import ViewPlan

SET_SIZE = 20
PLACES = tuple(f"{first}{second}X" for first in "ABCDEF" for second in "GHIJKL")
AMOUNT = 12.5


@cache
def stored_places(row: int) -> tuple[str, ...]:
    """Give the places of a row of the pool."""
    return tuple(random.Random(row).sample(PLACES, SET_SIZE))


def encode_place_rows(view: ViewPlan, rows: int, effective_ns: int) -> list[bytes]:
    """Pack a view's rows."""
    return [
        encode_row(view.layout, {"places": orjson.dumps(stored_places(row))}, effective_ns)
        for row in range(rows)
    ]


def request_params(plan: ServicePlan) -> tuple[dict[str, Any], str | None]:
    """Give a request's join keys and context with marks where its keys belong.

    The first mark is a line feed, the second, where there is one, a tabulator.
    """
    if plan.join_keys:
        return {"joinKeyMap": {"user_a": "\n", "user_b": "\t"}}, "\t"
    if plan.context_fields[0].name == "amount":
        # The key has to stand somewhere: as an option that nobody knows.
        return {"requestContextMap": {"amount": AMOUNT}, "requestOptions": {"mark": "\n"}}, None
    left, right = stored_places(0), stored_places(1)
    return {"requestContextMap": {"places_a": [*left[:-1], "\n"], "places_b": [*right[:-1], "\t"]}}, "\t"


def expected_values(plan: ServicePlan, key: str, pool_rows: int) -> list[float]:
    """Compute what a request must be answered."""
    if plan.join_keys:
        sets = [stored_places(row_index(each, pool_rows)) for each in (key, partner_key(key))]
        return [_similarity(*sets)]
    if plan.context_fields[0].name == "amount":
        return [AMOUNT + AMOUNT]
    return [_similarity([*stored_places(0)[:-1], key], [*stored_places(1)[:-1], partner_key(key)])]


def _similarity(left: Sequence[str], right: Sequence[str]) -> float:
    common = sum(place in right for place in left)
    return common / (len(left) + len(right) - common)
