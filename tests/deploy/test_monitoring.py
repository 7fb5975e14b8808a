"""Dashboard and alerting rules: every metric and label that they name is one that the server shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.metrics_page import MetricsPage
from fastserve.server.metrics_table import METRICS, Kind, ViewCell
from fastserve.server.shared_memory import SharedMemory
from tests.support.server_process import ROOT

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "fastserve.json"
# Labels that Prometheus gives to every target, and the metric that it makes of each.
OF_TARGETS = {"job", "instance"}
SAMPLES = {
    metric.name + suffix: OF_TARGETS.union(metric.all_labels, {"le"} if suffix == "_bucket" else ())
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
} | {"up": OF_TARGETS}
SELECTOR = re.compile(r"\b(fastserve_\w+|up)\b(?:\{([^}]*)\})?")


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


@pytest.mark.parametrize("name, expression", list(expressions()))
def test_metrics_and_labels_that_are_named_exist(name: str, expression: str) -> None:
    found = list(SELECTOR.finditer(expression))
    assert found, name
    for match in found:
        assert match[1] in SAMPLES, f"{name}: {match[1]}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[2] or ""))
        assert labels <= SAMPLES[match[1]], f"{name}: {match[0]}"
    known = set[str]().union(*(SAMPLES[match[1]] for match in found))
    for labels_text in re.findall(r"(?:by|without|ignoring|on) \(([^)]*)\)", expression):
        assert set(re.findall(r"\w+", labels_text)) <= known, f"{name}: {labels_text}"


def test_legends_and_summaries_name_labels_that_their_expressions_keep() -> None:
    for panel in panels():
        for target in panel["targets"]:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]
    for rule in alerts():
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"])))) or OF_TARGETS
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= kept, rule["alert"]


def test_every_metric_has_its_place_on_the_dashboard() -> None:
    text = DASHBOARD.read_text()
    assert [metric.name for metric in METRICS if metric.name not in text] == []


def test_the_dashboard_has_no_two_panels_in_one_place() -> None:
    places: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        box = panel["gridPos"]
        cells = {
            (x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])
        }
        assert not cells & places, panel["title"]
        assert box["x"] + box["w"] <= 24
        places |= cells


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


# --- by Prometheus's own tool ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def promtool() -> str:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool; install Debian's package prometheus")
    return tool


def checked(*command: str | Path, text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr


def test_promtool_takes_the_rules(promtool: str) -> None:
    checked(promtool, "check", "rules", "--lint=all", "--lint-fatal", ALERTS)


def test_alerts_fire_when_they_should(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", ALERTS.with_name("alerts_test.yml")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_promtool_finds_nothing_to_say_of_the_metrics(promtool: str) -> None:
    memory = MetricsMemory(2)
    memory.declare(["a service", 'with "quotes"\n'], ["a view"], ["on demand"])
    cells = memory.views.row(1)["a view"]
    cells[ViewCell.LOOKED_NS], cells[ViewCell.EFFECTIVE_NS] = 1, 2
    clock, life = (lambda: 10**18), SharedMemory(2)
    page = MetricsPage(memory, life, "w", ["a view"], clock, lambda: None, lambda _: None)
    checked(promtool, "check", "metrics", text="\n".join([*page.lines(), ""]))
