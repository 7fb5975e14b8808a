"""One request's way through its plan: coalesced reads, merge, values. Pure: the fetch is an argument."""
