"""The two scenarios: which services, in which shares, what the article published and what is promised here.

The article is "Serving 100,000 feature vectors per second with Tecton and DynamoDB"
(https://www.tecton.ai/blog/serving-100000-feature-vectors-per-second-with-tecton-and-dynamodb/).
Knows no processes.

Invariants:
1. A scenario's shares add up to one.
2. The article's figures are its own: they come from a cluster, a network and DynamoDB itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Scenario:
    """One scenario."""

    name: str
    title: str
    # Service -> its share of all requests.
    shares: dict[str, float]
    # What CPU per request is scaled to: an extrapolation.
    scaled_fs_qps: int
    # The article's latencies over all services, and its store reads per second if it tells them.
    article_ms: dict[str, float]
    article_ddb_qps: float | None
    # What the mix may cost at most.
    mix_budget_us: float
    # What a server may add to the store's own call latency, at half its saturation.
    above_store_budget_ms: dict[str, float] = field(default_factory=lambda: {"p50": 1.0, "p99": 3.0})

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self.shares)


SCENARIO_1 = Scenario(
    name="scenario1",
    title="Scenario 1: three services at once, 50, 5 and 10 feature views",
    shares={"fs1": 0.6, "fs2": 0.2, "fs3": 0.2},
    scaled_fs_qps=100_000,
    article_ms={"p50": 14.0, "p90": 28.0, "p95": 37.0, "p99": 55.0},
    article_ddb_qps=3_300_000,
    mix_budget_us=200.0,
)
SCENARIO_1_BUNDLED = replace(
    SCENARIO_1,
    title="Scenario 1 with bundles: 50, 5 and 10 feature views, one key a vector",
    shares={f"{service}_bundled": share for service, share in SCENARIO_1.shares.items()},
)
SCENARIO_2 = Scenario(
    name="scenario2",
    title="Scenario 2: an on-demand view in Python, the Jaccard similarity of two stored sets",
    shares={"jaccard_python": 1.0},
    scaled_fs_qps=40_000,
    article_ms={"p50": 20.0, "p90": 35.0, "p95": 40.0, "p99": 70.0},
    article_ddb_qps=None,
    mix_budget_us=45.0,
)
SCENARIOS = {scenario.name: scenario for scenario in (SCENARIO_1, SCENARIO_2)}
# With views of one entity in one item, which the article's weren't: beside its figures, not in their place.
BUNDLED = {SCENARIO_1.name: SCENARIO_1_BUNDLED}
