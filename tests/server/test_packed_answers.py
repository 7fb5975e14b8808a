"""Answers in MessagePack beside the JSON of the same request, over the whole application."""

from __future__ import annotations

from typing import Any

import msgpack
import orjson
import pytest

from fastserve.api.unpack import answer_document
from tests.server.application_world import KEYS, V1, V2, Answer, ApplicationWorld

PARTS = (
    "Names",
    "DataTypes",
    "EffectiveTimes",
    "ServingStatus",
    "FeatureDescriptions",
    "FeatureTags",
    "SloInfo",
)
EVERYTHING = {f"include{part}": True for part in PARTS}


def both(world: ApplicationWorld, path: str, **params: Any) -> tuple[Answer, Answer]:
    """Ask for JSON and for MessagePack at the same moment."""
    body = orjson.dumps({"params": params})
    world.turn()
    answers = []
    for accept in (None, b"application/msgpack"):
        start_s = world.now_s
        answers.append(world.ask("POST", path, body, accept=accept))
        world.now_s = start_s
    plain, packed = answers
    assert plain.content_type == b"application/json"
    return plain, packed


def say_the_same(plain: Answer, packed: Answer) -> None:
    assert (plain.status, packed.status) == (200, 200)
    assert packed.content_type == b"application/msgpack"
    assert orjson.dumps(answer_document(packed.body), option=orjson.OPT_SERIALIZE_NUMPY) == plain.body


@pytest.mark.parametrize("service", ["fraud:v2", "plain", "types", "days"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["values", "everything"])
def test_a_vector_says_the_same_in_both(world: ApplicationWorld, service: str, options: Any) -> None:
    names = [field.name for field in world.plan.services[service].join_keys]
    keys = {name: KEYS[name] for name in names}
    more = {"metadataOptions": options} if options else {}
    say_the_same(*both(world, V1 + "get-features", featureServiceName=service, joinKeyMap=keys, **more))
    rows = [{"joinKeyMap": keys}, {"joinKeyMap": {**keys, names[0]: KEYS[names[0]]}}]
    say_the_same(
        *both(world, V1 + "get-features-batch", featureServiceName=service, requestData=rows, **more)
    )


def test_int64_is_an_integer(world: ApplicationWorld) -> None:
    _, packed = both(world, V2 + "fraud:v2/get-features", joinKeyMap=KEYS)
    assert msgpack.unpackb(packed.body) == {"result": {"features": [30001, 15000.5, 55, 30001, 30001.0]}}


def test_errors_and_metadata_stay_json(world: ApplicationWorld) -> None:
    for path, params in (
        ("get-features", {"featureServiceName": "nobody", "joinKeyMap": {}}),
        ("get-features", {"featureServiceName": "plain", "joinKeyMap": {}}),
        ("metadata", {"featureServiceName": "plain"}),
    ):
        plain, packed = both(world, V1 + path, **params)
        assert plain == packed
