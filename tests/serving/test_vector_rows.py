from __future__ import annotations

import pytest

from fastserve.serving.columns import RowReport
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.serving.vector_rows import VectorRows
from tests.support.plans import attribute_row, attribute_view, workspace_plan

TRANSPORTS = pytest.mark.parametrize("transport", [BASE64_ROWS, RAW_ROWS], ids=["text", "bytes"])


@TRANSPORTS
def test_a_row_as_much_too_long_as_its_neighbour_is_too_short_is_not_taken_for_two(
    transport: RowTransport,
) -> None:
    plan = workspace_plan({"s": [attribute_view(name, ["b_float"]) for name in ("v", "w")]}).services["s"]
    first, second = (attribute_row(place.view, {"b_float": 1.5}) for place in plan.places)
    rows = VectorRows(plan, transport)
    whole = [transport.wrap(first), transport.wrap(second)]
    shifted = [transport.wrap(b""), transport.wrap(first + second)]
    assert rows.joined([whole]) is not None
    assert rows.joined([shifted]) is None
    assert rows.joined([whole, shifted]) is None
    report = RowReport()
    rows.repaired([shifted], report)
    assert set(report.unreadable) == {(0, 0), (0, 1)}
