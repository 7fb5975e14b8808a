"""Feast's Python feature server over its Redis store, for the look-ups that fastserve answers from Redis.

Its repository is that of `lookups` but for the store; its rows are written by Feast's own SDK, into the Redis
that fastserve's stand in. It must not know what it is compared with, beyond those services.

Invariants:
1. It runs with the settings that cost least, as `lookups` tells; its client is the one that Feast takes by
   default, redis-py, with hiredis, which Feast's extra brings along.
2. A key has the numbers that fastserve's row of the same key has; answers are checked against them.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from perf.compare.feast import lookups
from perf.compare.feast.environment import feast_command
from perf.compare.feast.server import environment
from perf.data import POOL_ROWS, service_plan, view_values
from perf.load.child import ChildError
from perf.load.tables import row_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf.load.load_plan import Stream
    from perf.load.redis_server import RedisAddress

WRITER = Path(__file__).parent / "redis_rows.py"
_STORE = """\
project: {project}
provider: local
registry: registry.db
online_store:
  type: redis
  connection_string: 127.0.0.1:{port}
entity_key_serialization_version: 3
"""


@contextlib.contextmanager
def running(service: str, redis: RedisAddress, keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Write the rows of a service's views under the keys and serve them; give the server's pid and port.

    Raises:
        ChildError: Feast can't be installed, refuses repository or rows, or did not come up.
    """
    variables = environment()
    store = _STORE.format(project=lookups.PROJECT, port=redis.port)
    with lookups.applied([service], store, variables) as place:
        _write(place, rows_of(service, keys), variables)
        with lookups.serving(place, variables) as found:
            yield found


def rows_of(service: str, keys: Sequence[str]) -> dict[str, Any]:
    """Give what is to be written: each view's rows, and which of them a key has."""
    views = (place.view for place in service_plan(service).places)
    return {
        "views": {view.name: view_values(view).tolist() for view in views},
        "keys": {key: row_index(key, POOL_ROWS) for key in keys},
    }


def _write(place: Path, rows: dict[str, Any], variables: dict[str, str]) -> None:
    (place / "rows.json").write_bytes(orjson.dumps(rows))
    writing = [str(feast_command().parent / "python"), str(WRITER), "rows.json"]
    done = subprocess.run(writing, cwd=place, check=False, capture_output=True, env=variables)
    if done.returncode:
        raise ChildError(
            f"Feast's SDK wrote no rows; it said:\n{done.stderr.decode(errors='replace')[-2_000:]}"
        )


def request_stream(service: str, **load: Any) -> Stream:
    """Make the load: the same entity, every feature by its name."""
    verify_with = {"service": service, "pool_rows": POOL_ROWS}
    return lookups.request_stream(service, **{"verify_with": verify_with, **load})
