"""Prints what one build answers to damaged requests: `python -m tests.compiled.answers COUNT SEED`.

The requests are `tests.support.fuzzing`'s, damaged in their bytes or in their JSON. Run in two trees, one of
them compiled, the lines must be the same.
"""

from __future__ import annotations

import asyncio
import re
import sys
from hashlib import sha256

from fastserve.compiled import is_compiled
from tests.server.application_world import ApplicationWorld
from tests.support.fuzzing import BYTES_SHARE, HANGS_S, Mutator, converse, documents
from tests.support.http_connection import Client

# How long a request took, in whole answers of which nothing else is left to chance.
TIMES = re.compile(rb'"\w*Seconds":[-0-9.e]+')
LENGTH = re.compile(rb"Content-Length: \d+\r\n")
SHOWN_BYTES = 300


async def answers(count: int, seed: int) -> None:
    """Ask, and print a line for each."""
    world = ApplicationWorld()
    mutator = Mutator(seed, documents("plain", {"user_id": "u1"}, "w"))
    bytes_of_all = round(count * BYTES_SHARE)
    for number in range(count):
        raw = mutator.raw() if number < bytes_of_all else mutator.well_formed()
        client = Client(world.application)
        await asyncio.wait_for(converse(world, client, mutator.segments(raw)), HANGS_S)
        told, times = TIMES.subn(b"", client.received)
        if times:  # they have as many digits as they have
            told = LENGTH.sub(b"", told)
        whole = sha256(told).hexdigest()[:16]
        print(number, whole, told[:SHOWN_BYTES], raw[:SHOWN_BYTES] if b" 500 " in told else "")


if __name__ == "__main__":
    print("compiled" if is_compiled() else "pure", file=sys.stderr)
    asyncio.run(answers(int(sys.argv[1]), int(sys.argv[2])))
