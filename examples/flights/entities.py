"""What the features are about."""

from fastserve import Entity, Field, String

airline = Entity("airline", Field("carrier", String), description="An airline, by its IATA code")
airport = Entity("airport", Field("faa", String), description="An airport, by its FAA code")
origin = Entity("origin", Field("origin", String), description="The airport of departure")
destination = Entity("destination", Field("dest", String), description="The airport of arrival")
plane = Entity("plane", Field("tailnum", String), description="An aircraft, by its tail number")
