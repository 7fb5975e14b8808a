"""FastAPI + aiobotocore under measurement: `app.py` under uvicorn, in an environment of its own.

It must not know what it is compared with.

Invariants:
1. It runs with the settings that cost least: one process, uvloop, httptools, no access log, no `Date` and no
   `Server` header of uvicorn's.
2. It reads the tables and rows that fastserve reads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from perf.compare.environments import PackageEnvironment
from perf.data import service_plan
from perf.load.free_port import free_port
from perf.server import listening

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
ENVIRONMENT = PackageEnvironment("fastapi", HERE / "requirements.txt")


@contextlib.contextmanager
def running(services: Sequence[str], endpoint: str) -> Iterator[tuple[int, int]]:
    """Serve services of look-ups over a store; give the server's pid and port.

    Raises:
        ChildError: the packages can't be installed, or it did not come up.
    """
    port = free_port()
    arguments = [
        *(str(ENVIRONMENT.program("uvicorn")), "app:app", "--app-dir", str(HERE)),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--loop", "uvloop", "--http", "httptools", "--log-level", "warning"),
        *("--no-access-log", "--no-server-header", "--no-date-header"),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {
        **kept,
        "AWS_ACCESS_KEY_ID": "perf",
        "AWS_SECRET_ACCESS_KEY": "perf",
        "DYNAMODB_ENDPOINT": endpoint,
        "FEATURE_SERVICES": orjson.dumps({name: layout_of(name) for name in services}).decode(),
    }
    with listening(arguments, port, "/health", cwd=HERE, environment=environment) as pid:
        yield pid, port


def layout_of(service: str) -> dict[str, object]:
    """Tell where a service's numbers stand: tables, words of a row, the first that counts, how many."""
    places = service_plan(service).places
    (layout,) = {place.view.layout.columns: place.view.layout for place in places}.values()
    return {
        "tables": [place.view.table for place in places],
        "row_words": layout.fixed_words,
        "first_word": layout.columns[0].word,
        "features": len(layout.columns),
    }
