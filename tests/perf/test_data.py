from __future__ import annotations

from collections import Counter

import numpy as np
import orjson
import pytest

from fastserve.serving.transport import BASE64_ROWS
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.rows import decode_row, effective_ns_of
from perf.data import (
    AS_OF_NS,
    CLOCK_NS,
    POOL_ROWS,
    SHAPES,
    encode_rows,
    expected_features,
    request_stream,
    row_texts,
    service_plan,
    vector_verifier,
    view_values,
)
from perf.load.key_laws import entity_key
from perf.load.tables import row_index

KEY = "user00000007"


@pytest.mark.parametrize(
    "service, views, features",
    [("fs_1x10", 1, 10), ("fs_5x100", 5, 500), ("fs_10x100", 10, 1_000), ("fs_50x100", 50, 5_000)],
)
def test_a_shape_has_its_views_features_and_one_key_a_view(service: str, views: int, features: int) -> None:
    plan = service_plan(service)

    assert len(plan.places) == plan.key_count == views
    assert len(plan.outputs) == features


def test_the_widest_shape_has_the_articles_proportions() -> None:
    plan = service_plan("fs_50x100")

    windows: Counter[int] = Counter()
    for place in plan.places:
        schema = place.view.schema
        if schema is None:
            windows[0] += len(place.view.layout.columns)
        else:
            windows.update(feature.spec.window.window_ns // 86_400_000_000_000 for feature in schema.features)

    # The article's are 1,250, 1,000, 1,250, 1,250 and 250; whole views of a hundred come this near.
    assert windows == {0: 1_200, 1: 1_026, 7: 1_254, 28: 1_254, 356: 266}


def test_an_aggregate_stores_about_three_numbers_a_feature() -> None:
    view = service_plan("fs_50x100").places[-1].view

    assert 2.5 <= len(view.layout.columns) / 100 <= 3


@pytest.mark.parametrize("number", [0, -1])
def test_rows_hold_the_values_they_were_made_of(number: int) -> None:
    view = service_plan("fs_5x100").places[number].view

    rows = encode_rows(view)

    assert len(rows) == POOL_ROWS
    assert effective_ns_of(rows[5]) == AS_OF_NS
    decoded = decode_row(view.layout, rows[5])
    assert list(decoded.values()) == view_values(view)[5].tolist()


def test_every_shape_has_values_of_its_own_for_each_feature() -> None:
    values = expected_features("fs_5x100", KEY)

    assert len(set(values)) == 500
    assert np.isfinite(values).all()


def test_the_verifier_finds_a_wrong_value_and_a_missing_one() -> None:
    plan = service_plan("fs_1x10")
    verify = vector_verifier({"service": "fs_1x10"})
    values: list[object] = [*expected_features("fs_1x10", KEY)]

    def answer(features: list[object]) -> bytes:
        return orjson.dumps({"result": {"features": features}})

    assert verify(KEY, answer(values)) is None
    assert verify(KEY, answer(values[:-1])) == "expected 10 features, got 9"
    assert (verify(KEY, answer([*values[:-1], 1.0])) or "").startswith(f"{plan.outputs[-1].name}: expected ")
    assert (verify(KEY, answer([None, *values[1:]])) or "").endswith("got None")


@pytest.mark.parametrize("service", ["fs_1x10", "fs_5x100", "lookups_5x100"])
def test_the_slow_way_agrees_with_the_evaluator_on_every_row(service: str) -> None:
    plan = service_plan(service)
    evaluator = VectorEvaluator(plan, BASE64_ROWS)
    texts = [row_texts(place.view) for place in plan.places]
    keys = [entity_key(number) for number in range(100)]
    lines = [[pool[row_index(key, POOL_ROWS)] for pool in texts] for key in keys]

    columns = evaluator.evaluate(lines, CLOCK_NS)

    np.testing.assert_allclose(columns.floats, [expected_features(service, key) for key in keys], rtol=1e-12)


def test_a_request_is_json_around_the_key() -> None:
    load = request_stream("fs_1x10")

    body = orjson.loads(load.head + KEY + load.tail)

    assert body["params"] == {
        "workspaceName": "perf",
        "featureServiceName": "fs_1x10",
        "joinKeyMap": {"user_id": KEY},
    }


def test_every_shapes_repo_has_its_service() -> None:
    for service in SHAPES:
        assert service_plan(service).name == service
