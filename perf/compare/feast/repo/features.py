"""Feast's on-demand view over the same request as `jaccard_sent_python`: how alike two sent sets are.

Read by Feast in its own environment. The function is written out in the view, since Feast keeps a view's
function by itself and calls it without the module around it.
"""

from __future__ import annotations

from typing import Any

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, String

sent = RequestSource(
    name="sent",
    schema=[Field(name="places_a", dtype=Array(String)), Field(name="places_b", dtype=Array(String))],
)


# `singleton`: the function takes one request's values, not lists of them, as in fastserve's mode "python".
@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[sent], schema=[Field(name="similarity", dtype=Float64)], mode="python", singleton=True
)
def sent_alike(inputs: dict[str, Any]) -> dict[str, Any]:
    a, b = set(inputs["places_a"] or ()), set(inputs["places_b"] or ())
    together = len(a | b)
    return {"similarity": len(a & b) / together if together else 0.0}
