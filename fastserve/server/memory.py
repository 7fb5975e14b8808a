"""The C library's allocator, told to keep what a worker frees.

glibc gives blocks above 128 KiB back to the kernel as soon as they are freed, and the top of the heap
likewise. A worker allocates such blocks all the time (answers of the store, matrices, answers), so each would
be paid for again in page faults: evaluating 16 vectors of 5,000 features took 157 us each that way and 34 us
with the limits below (how it was measured, and what glibc does by itself: docs/decisions/0004).

Invariants
1. Where the C library has no ``mallopt`` nothing changes.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEEP_BYTES = 32 * 1024 * 1024
"""So much free memory at the top of the heap is kept, and blocks up to this size come from the heap."""


def keep_freed_memory() -> bool:
    """Raise the allocator's limits for this process; return whether it has such limits."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # pragma: no cover - another C library
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEEP_BYTES) and mallopt(M_MMAP_THRESHOLD, KEEP_BYTES))
