"""What is known of airlines, airports and planes."""

from fastserve import Array, Attribute, FeatureView, Float64, Int64, String

from . import entities, sources

airline = FeatureView(
    "airline",
    entities=entities.airline,
    source=sources.airlines,
    features=[Attribute("name", String, description="The airline's name")],
)

airport = FeatureView(
    "airport",
    entities=entities.airport,
    source=sources.airports,
    features=[
        Attribute("name", String, description="The airport's name"),
        Attribute("lat", Float64, description="Latitude in degrees"),
        Attribute("lon", Float64, description="Longitude in degrees"),
        Attribute("alt", Int64, description="Altitude in feet"),
        Attribute("tz", Int64, description="Hours from UTC"),
        Attribute("dst", String, description="Daylight saving: A as in the US, U unknown, N none"),
        Attribute("tzone", String, description="Time zone"),
    ],
)

plane = FeatureView(
    "plane",
    entities=entities.plane,
    source=sources.planes,
    features=[
        Attribute("year", Int64, description="Year of manufacture"),
        Attribute("type", String, description="Kind of aircraft"),
        Attribute("manufacturer", String),
        Attribute("model", String),
        Attribute("engines", Int64, description="How many engines"),
        Attribute("seats", Int64, description="How many seats"),
        Attribute("speed", Int64, description="Cruising speed in mph"),
        Attribute("engine", String, description="Kind of engine"),
    ],
)

carrier_destinations = FeatureView(
    "carrier_destinations",
    entities=entities.airline,
    source=sources.flights,
    transformation="""
        SELECT carrier, list(DISTINCT dest ORDER BY dest) AS destinations, max(time_hour) AS time_hour
        FROM {source}
        WHERE time_hour >= {until} - INTERVAL 28 DAY AND time_hour < {until}
        GROUP BY carrier
    """,
    features=[Attribute("destinations", Array(String), description="Where it flew to in the last 28 days")],
)
