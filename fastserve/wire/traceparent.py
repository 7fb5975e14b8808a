"""Reads the header `traceparent`: whose trace a request belongs to, and whether that one is recorded.

After "Trace Context", a W3C Recommendation (section 3.2). What isn't as it says there is as if it hadn't come
(section 3.2.2.3): a caller's mistake in it never fails a request.

Invariants
1. An identifier that is all zeros, which stands for none, is never returned.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Several headers are joined by commas, and no version has one.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^,]*)?")
_FORBIDDEN_VERSION = b"ff"
_ONLY_VERSION = b"00"  # later ones may have more behind the flags
_SAMPLED = 1


class TraceParent(NamedTuple):
    """The caller's trace and span; ``is_sampled`` tells that it records them."""

    trace_id: int
    span_id: int
    is_sampled: bool


def parse_traceparent(value: bytes) -> TraceParent | None:
    """Return what the header says, None where it says nothing that can be used."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or match[1] == _FORBIDDEN_VERSION or (match[1] == _ONLY_VERSION and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))
