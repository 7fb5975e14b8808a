"""The ids of requests that a block holds already, as bytes beside the block: 8 of the id, 4 of its time.

Pure. A request that is sent again finds its id in each block that its first try wrote, so it counts once.

Invariants
1. Ids are kept for `KEPT_S` and dropped then, or before that once a block has had `MAX_IDS` since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

KEPT_S = 600
MAX_IDS = 1024
ID_BYTES = 8
ENTRY_BYTES = 12


def decode_ids(ids: bytes) -> dict[bytes, int]:
    """Return the ids with the seconds since the epoch at which they came, oldest first."""
    return {
        ids[at : at + ID_BYTES]: int.from_bytes(ids[at + ID_BYTES : at + ENTRY_BYTES], "little")
        for at in range(0, len(ids) - len(ids) % ENTRY_BYTES, ENTRY_BYTES)
    }


def with_ids(known: Mapping[bytes, int], added: Iterable[bytes], now_s: int) -> dict[bytes, int]:
    """Return the ids that are still to be kept, and those that are ``added`` now."""
    kept = {known_id: came_s for known_id, came_s in known.items() if came_s > now_s - KEPT_S}
    kept |= dict.fromkeys(added, now_s)
    for oldest in list(kept)[: max(0, len(kept) - MAX_IDS)]:
        del kept[oldest]
    return kept


def encode_ids(ids: Mapping[bytes, int]) -> bytes:
    """Return the bytes that `decode_ids` reads."""
    return b"".join([known_id + came_s.to_bytes(4, "little") for known_id, came_s in ids.items()])
