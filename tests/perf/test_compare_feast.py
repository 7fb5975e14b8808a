"""What can be said of the comparison without Feast: the request, the function, the check of an answer."""

from __future__ import annotations

import runpy
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from perf.__main__ import main
from perf.compare.feast import server
from perf.compare.feast.environment import REQUIREMENTS, feast_version
from perf.data import expected_features, request_parts
from perf.load.key_laws import partner_key
from perf.report import format_footnotes, format_table, has_failed, over_budget
from tests.perf.test_report import figures

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "user00012345"


def feast_stand_in(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members)
    return module


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Give the function of Feast's view, out of the repository that Feast reads."""

    def anything(*_: Any, **__: Any) -> None:
        return None

    def decorator(**_: Any) -> Callable[[Any], Any]:
        return lambda function: function

    for module in (
        feast_stand_in("feast", Field=anything, RequestSource=anything),
        feast_stand_in("feast.on_demand_feature_view", on_demand_feature_view=decorator),
        feast_stand_in("feast.types", Array=anything, Float64=None, String=None),
    ):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    found: Callable[[dict[str, Any]], dict[str, Any]]
    found = runpy.run_path(str(server.REPO / "features.py"))["sent_alike"]
    return found


def body_of(head: str, middle: str | None, tail: str) -> Any:
    return orjson.loads(f"{head}{KEY}{middle}{partner_key(KEY)}{tail}")


def test_feast_is_sent_the_lists_that_the_service_is_sent() -> None:
    stream = server.request_stream(connections=16)

    theirs = body_of(stream.head, stream.middle, stream.tail)["entities"]
    ours = body_of(*request_parts(server.SERVICE))["params"]["requestContextMap"]
    assert {name: rows[0] for name, rows in theirs.items()} == ours
    assert [len(rows) for rows in theirs.values()] == [1, 1]


def test_feasts_view_computes_what_the_service_must_answer(
    view: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    sent = body_of(*request_parts(server.SERVICE))["params"]["requestContextMap"]

    assert list(view(sent).values()) == expected_features(server.SERVICE, KEY)
    assert view({"places_a": [], "places_b": None}) == {"similarity": 0.0}


def test_a_wrong_value_of_feasts_is_seen() -> None:
    verify = server.value_verifier({})
    right = expected_features(server.SERVICE, KEY)

    assert verify(KEY, orjson.dumps({"results": [{"values": right}]})) is None
    assert verify(KEY, orjson.dumps({"results": [{"values": [0.25]}]})) == f"expected {right!r}, got [0.25]"


def test_every_package_of_feasts_environment_is_pinned_and_held_to_a_hash() -> None:
    text = REQUIREMENTS.read_text()
    packages = [line for line in text.splitlines() if line[:1].isalnum()]

    assert feast_version().startswith("0.67.")
    assert all("==" in line for line in packages)
    entries = text.split("\n    --hash=sha256:")
    assert len(entries) > len(packages)
    assert all(line.endswith("\\") for line in packages)


def test_feast_is_refused_beside_a_service_it_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["perf", "run", "--service", "fs_1x10", "--feast"])

    assert main() == 1
    assert "measured beside jaccard_sent_python only" in capsys.readouterr().err


def test_feasts_measured_figures_are_told_beside_ours() -> None:
    feast = {
        **figures(name="feast", cpu_us_per_request=800.0, fs_qps=1_200.0, rounds_cpu_us=[790.0, 810.0]),
        "version": "0.67.0",
        "x_fastserve": 40.0,
    }
    measured = figures(name="jaccard_sent_python", feast=feast)

    assert format_table([measured]).splitlines()[2].split()[10] == "40"
    told = " ".join(format_footnotes([measured]).splitlines()[-2:])
    assert "800 us of CPU per request (rounds 790.0-810.0), 40.0 times fastserve's 20.0 us" in told
    assert not has_failed([measured])


def test_a_failure_of_feasts_fails_the_run() -> None:
    feast = {"errors": 1, "wrong": 0, "problems": ["status 500"]}
    broken = figures(name="jaccard_sent_python", feast=feast)

    assert has_failed([broken])
    assert over_budget([broken]) == ["jaccard_sent_python: 1 errors, 0 wrong of Feast: ['status 500']"]
