"""What can be said of the comparison without other environments: ours, the floor and the SDK for real."""

from __future__ import annotations

import struct
from base64 import b64decode
from pathlib import Path
from typing import Any

import orjson
import pytest

from perf.compare.command import compare, promises_of, summarize
from perf.compare.contenders import FASTAPI, FASTSERVE, FEAST, FLOOR, SDK, TLS
from perf.compare.fastapi.server import ENVIRONMENT, layout_of
from perf.compare.feast import lookups
from perf.compare.picture import draw_comparison
from perf.data import service_plan, view_values
from perf.environment import describe_environment
from perf.load.standin_client import StandInAddress
from perf.style import save
from tests.perf.test_standin import exchange
from tests.support.standin import stand_in

__all__ = ["stand_in"]


def entry(kind: str, cpu_us: float, service: str = "lookups_1x10") -> dict[str, Any]:
    return {
        "kind": kind,
        "name": kind,
        "service": service,
        "cpu_us_per_request": cpu_us,
        "rounds_cpu_us": [cpu_us],
        "x_fastserve": cpu_us / 20,
        "lookups_per_cpu_s": 1e6 / cpu_us,
        **dict.fromkeys(("fs_qps", "p99_ms", "rss_mib"), 1.0),
        **dict.fromkeys(("errors", "verified", "wrong"), 0),
    }


def test_fastserve_over_tls_and_the_sdk_give_right_values_in_one_run() -> None:
    kinds = (TLS, SDK)

    found = compare(kinds, rounds=1, duration_s=0.3, warmup_s=0.1, services=("lookups_1x10",))

    assert [each["kind"] for each in found] == list(kinds)
    assert [(each["errors"], each["wrong"]) for each in found] == [(0, 0)] * 2
    assert all(each["requests"] > 0 for each in found)


def test_ratios_are_held_against_what_was_promised() -> None:
    feast, floor, tls = promises_of(
        [entry(FASTSERVE, 20.0), entry(FEAST, 1_480.0), entry(FLOOR, 15.0), entry(TLS, 26.0)]
    )

    assert (feast["measured"], feast["bound"], feast["holds"]) == (74.0, "at least", False)
    assert floor["holds"]
    assert (tls["measured"], tls["limit"], tls["holds"]) == (1.3, 1.25, False)
    assert promises_of([entry(FEAST, 1_480.0)]) == []


def test_a_comparison_is_told_and_drawn_with_whose_figures_they_are(tmp_path: Path) -> None:
    compared = [entry(FASTSERVE, 20.0), entry(FLOOR, 15.0), entry(FASTAPI, 900.0), entry(FEAST, 1_480.0)]
    document = {
        "compared": compared,
        "promises": promises_of(compared),
        "published": {"RonDB, row look-ups per CPU and second": 181_000},
        "peers": {"feast": "0.67.0", "fastapi": ENVIRONMENT.version},
        **describe_environment(),
    }

    save(draw_comparison(document), tmp_path / "compare.png")

    assert (tmp_path / "compare.png").stat().st_size > 1_000
    told = summarize(document)
    assert "DOES NOT HOLD  Feast's CPU by ours, lookups_1x10: 74.00, at least 75" in told
    assert "RonDB published 181,000" in told


def test_fastapi_reads_the_words_that_make_the_vector() -> None:
    layout = layout_of("lookups_5x100")
    view = service_plan("lookups_5x100").places[0].view

    assert (len(layout["tables"]), layout["features"]) == (5, 100)  # type: ignore[arg-type]
    assert layout["first_word"] == view.layout.columns[0].word


def test_feast_is_asked_for_every_feature_by_name_and_must_answer_the_stored_numbers() -> None:
    stream = lookups.request_stream("lookups_5x100")
    asked = orjson.loads(stream.head + "user00000007" + stream.tail)
    verify = lookups.value_verifier({"service": "lookups_5x100"})
    view = service_plan("lookups_5x100").places[0].view
    numbers = view_values(view)[0].tolist()

    assert len(asked["features"]) == len(set(asked["features"])) == 500
    assert asked["entities"] == {"user_id": ["user00000007"]}
    names = [feature.partition(":")[2] for feature in asked["features"]]
    values = [
        number for place in service_plan("lookups_5x100").places for number in view_values(place.view)[0]
    ]
    answer = {"metadata": {"feature_names": names}, "results": [{"values": [value]} for value in values]}
    assert verify("", orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)) is None
    answer["results"][0] = {"values": [0.5]}  # type: ignore[index]
    problem = verify("", orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
    assert problem == f"{names[0]}: expected {numbers[0]!r}, got 0.5"


def test_an_item_of_feasts_holds_its_value_message() -> None:
    item = orjson.loads(lookups.item_text({"v_f000": 2.5}))

    packed = b64decode(item["values"]["M"]["v_f000"]["B"])
    assert packed == b"\x29" + struct.pack("<d", 2.5)


def test_prepared_items_answer_any_key_whole_whatever_is_projected(stand_in: StandInAddress) -> None:
    stand_in.prepare_items("feast.v", "entity_id", [lookups.item_text({"v_f000": 2.5})])
    wanted = {"Keys": [{"entity_id": {"S": "abc"}}], "ProjectionExpression": "#a"}

    _, body = exchange(stand_in, orjson.dumps({"RequestItems": {"feast.v": wanted}}))

    (item,) = orjson.loads(body)["Responses"]["feast.v"]
    assert item["entity_id"] == {"S": "abc"}
    assert set(item["values"]["M"]) == {"v_f000"}
    twice = {**wanted, "Keys": wanted["Keys"] * 2}  # type: ignore[operator]
    answer, body = exchange(stand_in, orjson.dumps({"RequestItems": {"feast.v": twice}}))
    assert (answer.status, b"duplicates" in body) == (400, True)


@pytest.mark.parametrize("requirements", [ENVIRONMENT.requirements])
def test_every_package_beside_us_is_pinned_and_held_to_a_hash(requirements: Path) -> None:
    text = requirements.read_text()
    packages = [line for line in text.splitlines() if line[:1].isalnum()]

    assert all("==" in line and line.endswith("\\") for line in packages)
    assert len(text.split("\n    --hash=sha256:")) > len(packages)
