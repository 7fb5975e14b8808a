"""What integration tests share: both kinds of stores for a server, and the flights once per run of tests."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fastserve.ingest.materialize import MaterializeReport
from fastserve.sdk.repo import Repo, load_repo
from perf.load import standin_client
from tests.support.feature_server import apply_and_materialize
from tests.support.server_process import ROOT

FLIGHTS_CLOCK = "2013-12-30T12:00:00Z"
FLIGHTS_CLOCK_NS = 1_388_404_800 * 10**9


class FlightsStore(NamedTuple):
    """The flights example materialized until its clock."""

    folder: Path
    repo: Repo
    url: str
    reports: dict[str, MaterializeReport]


@pytest.fixture(scope="session")
def flights_store(tmp_path_factory: pytest.TempPathFactory) -> FlightsStore:
    """Give the flights, which the first of pytest's processes to ask materializes; nobody writes to them."""
    repo = load_repo(ROOT / "examples" / "flights")
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "flights-of-all"
    shared.mkdir(exist_ok=True)
    url = f"local:{shared / 'store'}?sync=off"
    made = shared / "reports"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_bytes(pickle.dumps(apply_and_materialize(repo, url, FLIGHTS_CLOCK_NS)))
    return FlightsStore(tmp_path_factory.mktemp("flights"), repo, url, pickle.loads(made.read_bytes()))


@pytest.fixture(scope="module", params=["local", "dynamodb"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of an empty store for a module's tests, one of each kind after the other."""
    if request.param == "local":
        yield f"local:{tmp_path_factory.mktemp('store')}"
    else:
        with standin_client.running() as stand_in:
            yield stand_in.store_url()
