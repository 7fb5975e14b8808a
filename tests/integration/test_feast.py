"""A Feast project imported by the command line and served by a real server, over items that Feast wrote."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.cli.entry import main
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec
from perf.load import standin_client
from perf.load.standin_client import StandInAddress
from tests.support.feast_golden import CLOCK, FOLDER, exchange, golden
from tests.support.feature_server import serving_features, with_store
from tests.support.server_process import Server

PATH = "/get-online-features"
NAMES = ("one row", "two views, one of two keys", "every type", "a service", "aliases", "no entities")
REPEATS = 12


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what `fastserve import-feast` writes."""
    folder = tmp_path_factory.mktemp("feast")
    for name in ("repo/feature_store.yaml", "registry.db"):
        (folder / Path(name).name).write_bytes((FOLDER / name).read_bytes())
    output = folder / "ours"
    variables = {"RIDES_ENDPOINT": "http://127.0.0.1:1"}
    assert main(["import-feast", str(folder), "--output", str(output)], variables) == 0
    return output


def plain(value: Any) -> Any:
    """Return an attribute of DynamoDB's JSON as a value."""
    ((kind, inner),) = value.items()
    if kind == "B":
        return b64decode(inner)
    return {name: plain(each) for name, each in inner.items()} if kind == "M" else inner


async def put_golden(store: OnlineStore) -> None:
    """Put the items that Feast wrote into a store."""
    for table, items in golden("items.json").items():
        await store.create_table(TableSpec(table, KeyAttribute("entity_id", "S")))
        await store.put_items(table, [{name: plain(value) for name, value in item.items()} for item in items])


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandInAddress]:
    """Give a DynamoDB that holds what Feast wrote."""
    with standin_client.running() as address:
        with_store(address.store_url(), put_golden)
        yield address


@pytest.fixture(scope="module")
def server(repo: Path, stand_in: StandInAddress) -> Iterator[Server]:
    flags = ("--workers", "2", "--clock", CLOCK, "--admin-port", "0")
    with serving_features(repo, stand_in.store_url(), *flags) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.said


def by_name(answer: bytes) -> Any:
    document = orjson.loads(answer)
    return dict(zip(document["metadata"]["feature_names"], document["results"], strict=True))


def test_a_real_server_answers_what_feasts_server_answered(server: Server) -> None:
    connection = server.connect()
    for name in NAMES:
        recorded = exchange(name)
        answer = connection.ask(PATH, orjson.dumps(recorded["request"]))
        assert answer.status == 200
        assert by_name(answer.body) == by_name(orjson.dumps(recorded["answer"]))
    assert connection.get("/health").status == 200
    page = server.connect_admin().get("/metrics").body.decode()
    assert f'fastserve_requests_total{{service="{PATH}",status="2xx"}} 4' in page


def test_keys_that_the_store_leaves_out_are_not_taken_for_absent_rows(
    server: Server, stand_in: StandInAddress
) -> None:
    stand_in.control(faults={"unprocessed_share": 0.4, "shuffle": True}, reset=True)
    connection = server.connect()
    for _ in range(REPEATS):
        for name in NAMES:
            recorded = exchange(name)
            answer = connection.ask(PATH, orjson.dumps(recorded["request"]))
            assert by_name(answer.body) == by_name(orjson.dumps(recorded["answer"]))
    counters = stand_in.control(faults={})
    assert counters["unprocessed_keys"] > 0.2 * counters["keys"]


def test_the_local_store_serves_the_same_items(repo: Path, tmp_path: Path) -> None:
    url = f"local:{tmp_path / 'store'}?sync=off"
    with_store(url, put_golden)
    with serving_features(repo, url, "--workers", "1", "--clock", CLOCK) as server:
        recorded = exchange("every type")
        answer = server.connect().ask(PATH, orjson.dumps(recorded["request"]))
        assert by_name(answer.body) == by_name(orjson.dumps(recorded["answer"]))


def test_apply_leaves_tables_of_others_alone(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"local:{tmp_path / 'store'}"

    assert main(["apply", "--repo", str(repo), "--store", store, "--yes"], {}) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing to do."
    assert main(["check", "--repo", str(repo), "--store", store], {}) == 2
    assert "there is no table rides." in capsys.readouterr().err
    assert main(["materialize", "driver_stats", "--repo", str(repo), "--store", store], {}) == 2
    assert "expected a source with files to materialize" in capsys.readouterr().err
