"""A real Prometheus scrapes a loaded server: it has what clients counted, and answers all that is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from threading import Thread
from unittest.mock import patch

import pytest

from fastserve.cli import main
from tests.support import prometheus_server
from tests.support.feature_server import ask, clean_environ, serving_features
from tests.support.prometheus_server import Prometheus
from tests.support.server_process import ROOT, Connection, Server, eventually

pytestmark = pytest.mark.skipif(
    prometheus_server.executable() is None, reason="no prometheus; install Debian's package prometheus"
)

DASHBOARD = ROOT / "deploy" / "grafana" / "fastserve.json"
CLOCK = "2026-01-03T00:00:00Z"
DEFINITIONS = """
import fastserve as fs

user = fs.Entity("user", fs.Field("user_id", fs.String))
events = fs.FileSource("events", path="events.csv", timestamp_field="at")
profile = fs.FeatureView("profile", user, events, [fs.Attribute("age", fs.Int64)])

@fs.on_demand_feature_view(sources=[profile], features=[fs.Attribute("double", fs.Int64)])
def doubled(profile):
    return {"double": 2 * (profile["age"] or 0)}

fs.FeatureService("users", features=[profile, doubled])
"""
CLIENTS, GOOD, BAD = 8, 40, 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "features.py").write_text(DEFINITIONS)
    (folder / "events.csv").write_text("user_id,age,at\na,1,2026-01-01T00:00:00Z\n")
    url = f"local:{folder / 'store'}?sync=off"
    flags = ("--repo", str(folder), "--store", url)
    with patch.dict("os.environ", clean_environ(), clear=True):
        assert main(["apply", "--yes", *flags], {}) == 0
        assert main(["materialize", "--all", "--until", "2026-01-02T23:00:00Z", *flags], {}) == 0
    with serving_features(folder, url, "--workers", "2", "--clock", CLOCK, "--admin-port", "0") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    port = int(server.wait_for(r"admin pages on http://.+:(\d+)\n")[1])
    with prometheus_server.scraping(tmp_path_factory.mktemp("prometheus"), port) as running:
        yield running


def one_client(connection: Connection, statuses: list[int]) -> None:
    statuses += [ask(connection, "users", {"user_id": "a"}).status for _ in range(GOOD)]
    statuses += [ask(connection, "users", {"user_id": 1}).status for _ in range(BAD)]


def test_it_has_counted_what_clients_have_counted(server: Server, prometheus: Prometheus) -> None:
    statuses: list[int] = []
    clients = [Thread(target=one_client, args=(server.connect(), statuses)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    counted = {"2xx": statuses.count(200), "4xx": statuses.count(400), "5xx": 0}
    assert counted == {"2xx": CLIENTS * GOOD, "4xx": CLIENTS * BAD, "5xx": 0}

    def is_counted_by(metric: str) -> bool:
        found = prometheus.query(f"sum by (status) ({metric})")
        return {labels["status"]: number for labels, number in found} == counted

    for metric in ("fastserve_requests_total", "fastserve_http_answers_total"):
        eventually(partial(is_counted_by, metric))
    assert prometheus.number("sum(fastserve_request_duration_seconds_count)") == len(statuses)
    assert prometheus.number('fastserve_vectors_total{service="users"}') == CLIENTS * GOOD
    assert prometheus.number('fastserve_workers{state="ready"}') == 2
    assert prometheus.number('fastserve_view_age_seconds{view="profile"}') == 3600


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, str]]:
        (group,) = prometheus.api("rules", {})["groups"]
        found: list[dict[str, str]] = group["rules"]
        return found

    eventually(lambda: all(rule["health"] == "ok" for rule in rules()))
    assert len(rules()) > 10
    assert {rule["name"]: rule["state"] for rule in rules() if rule["state"] == "firing"} == {}


def panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_every_panel_of_the_dashboard_shows_something(prometheus: Prometheus) -> None:
    variables = {"$job": "fastserve", "$instance": ".+", "$service": ".+", "$__rate_interval": "30s"}
    eventually(lambda: prometheus.number("sum(count_over_time(up[1m]))") not in {None, 1.0})
    empty = set()
    for title, expression in panels():
        filled = re.sub(r"\$\w+", lambda match: variables[match[0]], expression)
        if not prometheus.query(filled):
            empty.add(f"{title}: {filled}")
    assert empty == set()
