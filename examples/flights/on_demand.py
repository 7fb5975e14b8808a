"""What is computed when a request comes."""

from collections.abc import Mapping
from typing import Any

from fastserve import Attribute, Float64, Int64, RequestContext, on_demand_feature_view

from .attributes import carrier_destinations, plane

destinations_a = carrier_destinations.with_name("destinations_a").with_join_key_map({"carrier": "carrier_a"})
destinations_b = carrier_destinations.with_name("destinations_b").with_join_key_map({"carrier": "carrier_b"})


@on_demand_feature_view(
    sources=[destinations_a, destinations_b],
    features=[
        Attribute("jaccard", Float64, description="Shared destinations over all destinations of the two"),
        Attribute("shared", Int64, description="How many destinations both serve"),
    ],
    description="How far the networks of two carriers from New York overlap",
)
def overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two sets of destinations; a carrier without flights has an empty one."""
    of_a, of_b = set(a["destinations"] or ()), set(b["destinations"] or ())
    both, either = len(of_a & of_b), len(of_a | of_b)
    return {"jaccard": both / either if either else None, "shared": both}


@on_demand_feature_view(
    sources=[plane[["year"]]],
    features=[Attribute("years", Int64, description="Years since the aircraft was made")],
    description="The aircraft's age when the request comes",
)
def plane_age(plane: Mapping[str, Any], context: RequestContext) -> dict[str, int | None]:
    """Subtract the year of manufacture; null where it isn't known."""
    made = plane["year"]
    return {"years": None if made is None else context.request_timestamp.year - made}
