"""The features of a model that predicts a departure's delay."""

from fastserve import FeatureService

from .attributes import airline, airport, plane
from .departures import carrier_delays, origin_delays, route_delays, tailnum_delays

flight_delay = FeatureService(
    "flight_delay",
    features=[
        airline,
        airport.with_name("origin_airport").with_join_key_map({"faa": "origin"}),
        airport.with_name("dest_airport").with_join_key_map({"faa": "dest"}),
        plane,
        carrier_delays,
        origin_delays,
        tailnum_delays,
        route_delays,
    ],
    description="What is known of a flight before it leaves",
)
