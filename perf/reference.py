"""What measured figures come to on the reference machine, on which the budgets were set.

There, a hand-written server took `trial_us` for look-ups; `perf.bare` is such a server, measured here in the
same rounds as fastserve. The quotient of the two is the machine factor. Knows no processes and no tables.

Invariants:
1. An estimate never takes the place of a measured figure: both are kept, under names of their own.
2. Without a bare server, or under another load than the reference's, there is no factor.

The factor is more than the machine's. The server that took `trial_us` is not at hand: if `perf.bare` is
written worse than that one was, the factor is too large and flatters, if better, too small. Stand-in,
generator, versions and interpreter are in it, too. `perf.micro.machine` measures the parts that don't depend
on who wrote the server.
"""

from __future__ import annotations

from typing import Any

from perf.data import SHAPES


def hold_against_reference(figures: dict[str, Any], *, same_load: bool) -> dict[str, Any]:
    """Give the ratio to the bare server, the machine factor, and the CPU at that factor beside the budget.

    A service with aggregates has no ratio, since the bare server answers look-ups only; it takes the factor
    of the look-ups with as many views. ``same_load`` tells whether the load was the reference's.
    """
    shape = SHAPES[figures["name"]]
    held: dict[str, Any] = {"bare_service": shape.bare_service, "budget_us": shape.budget_us}
    bare = figures.get("bare")
    if bare is None:
        return held
    cpu_us, bare_us = figures["cpu_us_per_request"], bare["cpu_us_per_request"]
    held["bare_us"] = bare_us
    if figures["name"] == shape.bare_service:
        held["x_bare"] = cpu_us / bare_us
    trial_us = SHAPES[shape.bare_service].trial_us
    if same_load and trial_us is not None:
        held["trial_us"] = trial_us
        held["machine_factor"] = bare_us / trial_us
        held["rounds_machine_factor"] = [round_us / trial_us for round_us in bare["rounds_cpu_us"]]
        held["cpu_us_at_factor"] = cpu_us * trial_us / bare_us
    return held
