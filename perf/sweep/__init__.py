"""How the cost of a request grows with one thing at a time."""
