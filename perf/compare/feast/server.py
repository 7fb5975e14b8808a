"""Feast's Python feature server under measurement: `feast serve` over the repository next to this module.

It must not know what it is compared with, beyond the service whose request it is sent.

Invariants:
1. It runs with the settings that cost least: one worker, no access log, no metrics, no restart after so many
   requests, no look at the registry while it is measured. The feature is asked for by its name: a feature
   service costs more.
2. It is sent what `SERVICE` is sent, in Feast's words, and its values are checked against the same numbers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from perf.compare.feast.environment import feast_command
from perf.data import expected_features, service_plan, split_at_keys
from perf.load.child import ChildError
from perf.load.free_port import free_port
from perf.load.load_plan import Stream
from perf.on_demand import request_params
from perf.server import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE = "jaccard_sent_python"
REPO = Path(__file__).parent / "repo"
PATH = "/get-online-features"
_FEATURE = "sent_alike:similarity"
# Longer than any measurement.
_REGISTRY_TTL_S = 86_400


def command(feast: Path, port: int) -> list[str]:
    """Give the command line that starts the server."""
    return [
        *(str(feast), "serve", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--no-access-log", "--max-requests", "0", "--max-requests-jitter", "0"),
        *("--registry_ttl_sec", str(_REGISTRY_TTL_S)),
    ]


@contextlib.contextmanager
def running() -> Iterator[tuple[int, int]]:
    """Apply the repository in a temporary folder and serve it; give the server's pid and port.

    Raises:
        ChildError: Feast can't be installed, refuses the repository, or did not come up.
    """
    feast = feast_command()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "repo"
        shutil.copytree(REPO, place, ignore=shutil.ignore_patterns("__pycache__"))
        applied = subprocess.run(
            [str(feast), "apply"], cwd=place, check=False, capture_output=True, env=environment()
        )
        if applied.returncode:
            raise ChildError(f"feast apply failed; it wrote:\n{applied.stderr.decode(errors='replace')}")
        port = free_port()
        with listening(command(feast, port), port, "/health", cwd=place, environment=environment()) as pid:
            yield pid, port


def environment() -> dict[str, str]:
    """Give the environment without what is for the project's interpreter: it would lead Feast's astray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def request_stream(**load: Any) -> Stream:
    """Make the load: the request of `SERVICE` with its two lists, as one row of Feast's columns."""
    params, second = request_params(service_plan(SERVICE))
    columns = {name: [value] for name, value in params["requestContextMap"].items()}
    head, middle, tail = split_at_keys({"features": [_FEATURE], "entities": columns}, second)
    verify = {"verify": "perf.compare.feast.server:value_verifier", "verify_every": 500}
    return Stream("feast", PATH, head, tail, middle, **{**verify, **load})


def value_verifier(_configuration: dict[str, Any]) -> Callable[[str, bytes], str | None]:
    """Make the generator's check of an answer's value: it gives the problem, or None."""

    def verify(key: str, body: bytes) -> str | None:
        values = orjson.loads(body)["results"][0]["values"]
        expected = expected_features(SERVICE, key)
        return None if values == expected else f"expected {expected!r}, got {values!r}"

    return verify
