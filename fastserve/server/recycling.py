"""When a worker has served enough: by the requests that it answered, or by the memory that it holds.

It knows neither signals nor forks, and nothing of who takes the worker's place.

Invariants
1. Each worker's limit of requests is drawn anew, so that workers that began together don't end together.
2. A worker that holds more than the limit of memory when it is ready isn't replaced for it: the next one
   would hold as much, and workers would be replaced for ever.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from fastserve.server.options import ServerOptions

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024
# The last tenth: workers that share the load evenly end a tenth of their lives apart.
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may reach; None for no limit."""

    requests: int | None
    rss_bytes: int | None

    def reason(self, requests: int, pid: int) -> str:
        """Return why a worker is to be replaced, "" while it isn't."""
        if self.requests is not None and requests >= self.requests:
            return f"it has answered {requests} requests"
        if self.rss_bytes is not None and (held_bytes := rss_bytes(pid)) >= self.rss_bytes:
            return f"it holds {held_bytes // MIB} MB of memory"
        return ""


def draw_limits(options: ServerOptions) -> Limits:
    """Return the limits of a worker that starts now."""
    requests = options.max_requests
    if requests is not None:
        requests = max(1, requests - int(requests * JITTER * random.random()))  # noqa: S311 - no secret
    return Limits(requests, None if options.max_rss_mb is None else options.max_rss_mb * MIB)


def rss_bytes(pid: int) -> int:
    """Return the memory that a process holds, what it shares included; 0 where the system doesn't say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except (OSError, IndexError):  # it has ended, or this isn't Linux
        return 0
