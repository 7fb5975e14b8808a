"""Servers that the tests of several modules share: one of each for the session."""

from __future__ import annotations

from tests.support.redis_servers import redis_cluster, redis_server

__all__ = ["redis_cluster", "redis_server"]
