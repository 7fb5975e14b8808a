"""Servers whose clock is fixed answer for that time: windows slide with it, and rows grow too old."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from fastserve.sdk.repo import load_repo
from tests.support.feature_server import AWS, apply_and_materialize, ask, features, starting_features
from tests.support.server_process import Server
from tests.support.shop_repo import write_shop_repo

UNTIL_NS = 1_767_355_200 * 10**9  # 2026-01-02T12:00:00Z
CLOCKS = ("2026-01-02T12:00:00Z", "2026-01-03T11:00:00+01:00", "2026-02-02T00:00:00Z")
KEYS = {"user_id": "u1", "payee_id": "u2", "merchant_id": 7}


def named_features(server: Server) -> dict[str, Any]:
    """Return the vector of `KEYS` by the features' names."""
    server.wait_until_listening()
    answer = ask(server.connect(), "fraud:v2", KEYS, metadataOptions={"includeNames": True})
    names = [feature["name"] for feature in orjson.loads(answer.body)["metadata"]["features"]]
    return dict(zip(names, features(answer), strict=True))


def test_the_clock_can_be_fixed(tmp_path: Path) -> None:
    repo, url = write_shop_repo(tmp_path), f"local:{tmp_path / 'store'}"
    apply_and_materialize(load_repo(repo), url, UNTIL_NS)
    with ExitStack() as stack:
        environs = [{**AWS, "FASTSERVE_CLOCK": clock} for clock in CLOCKS]
        servers = [
            stack.enter_context(starting_features(repo, url, "--workers", "1", environ=environ))
            for environ in environs
        ]
        now, later, gone = map(named_features, servers)
        assert [server.stop() for server in servers] == [0, 0, 0]
    assert (now["profile.age"], later["profile.age"], gone["profile.age"]) == ("30", "30", None)
    assert (now["spending.amount_sum_1d_1h"], later["spending.amount_sum_1d_1h"]) == (2.5, None)
    assert now["payee_spending.amount_sum_1d_1h"] == later["payee_spending.amount_sum_1d_1h"] == 100.0
