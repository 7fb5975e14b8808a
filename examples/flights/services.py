"""The features that two models read: one predicts a departure's delay, one compares carriers."""

from fastserve import FeatureService

from .attributes import airline, airport, plane
from .departures import carrier_delays, origin_delays, route_delays, tailnum_delays
from .on_demand import overlap, plane_age

flight_delay = FeatureService(
    "flight_delay",
    features=[
        airline,
        airport.with_name("origin_airport").with_join_key_map({"faa": "origin"}),
        airport.with_name("dest_airport").with_join_key_map({"faa": "dest"}),
        plane,
        plane_age,
        carrier_delays,
        origin_delays,
        tailnum_delays,
        route_delays,
    ],
    description="What is known of a flight before it leaves",
)

route_overlap = FeatureService(
    "route_overlap",
    features=[overlap],
    description="How much of their networks two carriers share, by carrier_a and carrier_b",
)
