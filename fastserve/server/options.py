"""What the server must be told to run: address, processes, times and sizes, in one frozen value.

It knows nothing of where the values come from (flags, environment, files).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastserve.wire.http1 import HttpLimits


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Settings of the arbiter, its workers and their connections; the defaults suit one behind a proxy."""

    host: str = "127.0.0.1"
    port: int = 8080  # 0 takes a free one, which the ready line tells
    workers: int = 1
    backlog: int = 2048  # the kernel cuts it to net.core.somaxconn
    limits: HttpLimits = field(default_factory=HttpLimits)

    # A second listener, for metrics, probes and pages that aren't every client's business; None for none.
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None

    # Longer than a proxy keeps its idle connections (AWS's load balancer 60 s, nginx 75 s): when the proxy
    # closes first, no request meets a closing connection. nginx doesn't repeat a POST that did: a user's 502.
    idle_timeout_s: float = 90.0
    header_timeout_s: float = 10.0
    # A body may take `header_timeout_s` in any case; after that it must have come this fast on average.
    body_rate_bytes_per_s: int = 1024
    # A client that reads nothing of its answers for so long, or lets so many bytes of them pile up, is cut.
    write_timeout_s: float = 30.0
    write_buffer_bytes: int = 32 * 1024 * 1024
    # Requests of one connection that may be unanswered at once; reading pauses beyond.
    max_pipelined: int = 16

    boot_timeout_s: float = 120.0
    shutdown_timeout_s: float = 30.0
    # While draining, a connection that is in use gets `Connection: close` on its next answer; one that has
    # sent nothing for so long is closed without.
    drain_grace_s: float = 0.5
    heartbeat_timeout_s: float = 5.0
    # A worker that has answered so many requests, or holds so much memory, is replaced; None for never.
    max_requests: int | None = None
    max_rss_mb: int | None = None
