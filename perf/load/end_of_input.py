"""Waiting for the end of standard input: how a child learns that its harness is gone.

Invariants:
1. It returns once the other end of the pipe is closed, also when the harness was killed.
"""

from __future__ import annotations

import asyncio
import os
import sys


async def end_of_input(loop: asyncio.AbstractEventLoop) -> None:
    """Return when standard input has ended."""
    ended: asyncio.Future[None] = loop.create_future()
    descriptor = sys.stdin.fileno()

    def on_readable() -> None:
        if not os.read(descriptor, 4_096) and not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, on_readable)
    await ended
    loop.remove_reader(descriptor)
