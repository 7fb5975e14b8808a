"""What integration tests share: both kinds of stores for a server, and the flights once per session."""

from __future__ import annotations

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
    folder = tmp_path_factory.mktemp("flights")
    repo = load_repo(ROOT / "examples" / "flights")
    url = f"local:{folder / 'store'}?sync=off"
    return FlightsStore(folder, repo, url, apply_and_materialize(repo, url, FLIGHTS_CLOCK_NS))


@pytest.fixture(scope="module", params=["local", "dynamodb"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of an empty store for a module's tests, one of each kind after the other."""
    if request.param == "local":
        yield f"local:{tmp_path_factory.mktemp('store')}"
    else:
        with standin_client.running() as stand_in:
            yield stand_in.store_url()
