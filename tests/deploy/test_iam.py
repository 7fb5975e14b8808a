"""The policies in `deploy/iam` allow what each command does to DynamoDB, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastserve.cli import main
from fastserve.tiles.times import format_time
from tests.support.dynamodb_servers import (  # noqa: F401 - pytest finds fixtures by their names here
    aws_environment,
)
from tests.support.feature_server import ask, serving_features
from tests.support.server_process import ROOT
from tests.support.standin import StandInAddress, stand_in  # noqa: F401 - likewise

IAM = ROOT / "deploy" / "iam"
POLICIES = sorted(path.stem for path in IAM.glob("*.json"))
REPO = """
from datetime import timedelta
from fastserve import *

user = Entity("user", Field("user_id", String))
fields = [Field("user_id", String), Field("at", Timestamp), Field("cents", Int64)]
pushes = PushSource("pushes", fields, timestamp_field="at")
bills = FileSource("bills", path="bills.csv", timestamp_field="at")
sums = [Aggregate(Field("cents", Int64), "sum", TimeWindow(timedelta(days=7)))]
hour = timedelta(hours=1)
spend = FeatureView("spend", user, pushes, sums, aggregation_interval=hour, bundle="items")
latest = FeatureView("latest", user, pushes, [Attribute("cents", Int64)], bundle="items")
due = {"batch_schedule": hour, "bundle": "items"}
billed = FeatureView("billed", user, bills, sums, aggregation_interval=hour, **due)
alone = FeatureView("alone", user, bills, [Attribute("cents", Int64)])
service = FeatureService("everything", [spend, latest, billed, alone])
"""


def actions(policy: str) -> set[str]:
    """Return the operations that a policy allows."""
    document = json.loads((IAM / f"{policy}.json").read_text())
    return {
        action.removeprefix("dynamodb:")
        for statement in document["Statement"]
        for action in statement["Action"]
    }


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "definitions.py").write_text(REPO)
    (folder / "bills.csv").write_text("user_id,at,cents\nu1,2026-01-01T00:00:00Z,5\n")
    return folder


@pytest.fixture
def calls(stand_in: StandInAddress) -> Callable[[], set[str]]:  # noqa: F811 - a fixture
    """Give what was called since the last time."""
    before: dict[str, int] = {}

    def since() -> set[str]:
        nonlocal before
        now: dict[str, int] = stand_in.counters()["calls"]
        made = {name for name, count in now.items() if count > before.get(name, 0)}
        before = now
        return made

    return since


@contextmanager
def serving(repo: Path, url: str) -> Iterator[Any]:
    with serving_features(repo, url, "--workers", "1") as server:
        yield server.connect()


@pytest.mark.usefixtures("aws_environment")
def test_each_command_does_what_its_policy_allows_and_no_more(
    repo: Path,
    stand_in: StandInAddress,  # noqa: F811 - a fixture
    calls: Callable[[], set[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = stand_in.store_url()

    def run(*argv: str) -> None:
        assert main([*argv, "--repo", str(repo), "--store", url], {}) == 0, capsys.readouterr().err

    run("apply", "--yes")
    run("apply", "--yes")
    applied = calls()
    run("materialize", "--all", "--until", "2026-01-02")
    run("materialize", "--due")
    run("materialize", "--status")
    materialized = calls()
    with serving(repo, url) as connection:
        assert ask(connection, "everything", {"user_id": "u1"}).status == 200
        read = calls()
        record = {"user_id": "u1", "at": format_time(time.time_ns()), "cents": 5}
        pushed = connection.ask("/ingest", json.dumps({"records": {"pushes": [{"record": record}]}}).encode())
        assert pushed.status == 200, pushed.body
        assert ask(connection, "everything", {"user_id": "u1"}).status == 200
    served = read | calls()
    run("compact", "--all")
    compacted = calls()
    run("check")
    checked = calls()
    found = {
        "apply": applied,
        "materialize": materialized,
        "compact": compacted,
        "serve": read,
        "serve-ingest": served,
    }
    assert found == {policy: actions(policy) for policy in POLICIES}
    assert checked <= actions("serve")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_names_the_tables_of_one_prefix_and_nothing_else(policy: str) -> None:
    document = json.loads((IAM / f"{policy}.json").read_text())
    assert set(document) == {"Version", "Statement"}
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        assert all("*" not in action for action in statement["Action"])
        for resource in statement["Resource"]:
            assert resource.startswith("arn:aws:dynamodb:eu-central-1:123456789012:table/prod.")
