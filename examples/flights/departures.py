"""How punctual departures were by carrier, origin, aircraft and route, over 1, 7, 28 and 356 days."""

from collections.abc import Sequence
from datetime import timedelta

from fastserve import Aggregate, Entity, FeatureView, Field, Float64, Int64, TimeWindow

from .entities import airline, destination, origin, plane
from .sources import flights

FLIGHT = Field("flight", Int64)
DEP_DELAY = Field("dep_delay", Float64)
DAYS = (1, 7, 28, 356)


def departures(name: str, entities: Sequence[Entity], description: str) -> FeatureView:
    """Make the view of flights and their delays by some entities."""
    windows = [TimeWindow(timedelta(days=days)) for days in DAYS]
    counts = [Aggregate(FLIGHT, "count", window, description="Scheduled departures") for window in windows]
    # A cancelled flight has no delay: count of dep_delay over count of flight is the share that left.
    left = [
        Aggregate(DEP_DELAY, "count", window, description="Departures that took place") for window in windows
    ]
    delays = [
        Aggregate(DEP_DELAY, function, window, description=f"{function} of the delay in minutes")
        for function in ("mean", "max", "sum")
        for window in windows
    ]
    return FeatureView(
        name,
        entities=entities,
        source=flights,
        features=[*counts, *left, *delays],
        aggregation_interval=timedelta(hours=1),
        batch_schedule=timedelta(days=1),
        description=description,
    )


carrier_delays = departures("carrier_delays", [airline], "Departures of the carrier")
origin_delays = departures("origin_delays", [origin], "Departures from the airport")
tailnum_delays = departures("tailnum_delays", [plane], "Departures of the aircraft")
route_delays = departures("route_delays", [origin, destination], "Departures on the route")
