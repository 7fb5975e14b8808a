"""The measured shapes: their definitions compiled, their rows, and what the answers must say.

It must not know how a server merges: `expected_features` adds up stored numbers one by one, from the values
that the rows were made of, not from the rows.

Invariants:
1. Everything follows from the view's name and the clock: the harness, the stand-in and the generator make
   the same values without telling each other.
2. Values are float64 of full precision, so that no rounding makes them cheap to print.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from fastserve.plan.bundles import Bundle
from fastserve.plan.service import ServicePlan, WorkspacePlan, plan_workspace
from fastserve.plan.views import ViewPlan
from fastserve.sdk.repo import load_repo
from fastserve.tiles.rows import RowBuilder
from perf.load.load_plan import Stream
from perf.load.tables import row_index
from perf.on_demand import encode_place_rows, expected_values, request_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from perf.load.standin_client import StandInAddress

ON_DEMAND = "on_demand"
SWEEP = "sweep"
BUNDLED = "bundled"
# What is swept, and the values that have a service each (`repos/sweep`).
SWEPT = {
    "features": (10, 50, 100, 200, 500, 1_000),
    "views": (1, 2, 5, 10, 20, 50),
    "keys": (1, 2, 5, 10, 20, 50),
    "window": (1, 7, 28, 356),
}
REPOS = Path(__file__).parent / "repos"
# Distinct rows per table. Fifty tables of them are more than a core's cache holds, as a real table is.
POOL_ROWS = 64
CLOCK = "2026-01-10T12:00:00Z"
CLOCK_NS = 1_768_046_400_000_000_000
HOUR_NS = 3_600_000_000_000
# The batch job ran at midnight: rows are half a day old when they are read.
AS_OF_NS = CLOCK_NS - 12 * HOUR_NS
PATH = "/api/v1/feature-service/get-features"
_RELATIVE_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Shape:
    """One measured service and what it may cost."""

    service: str
    repo: str
    # CPU of the server process per request, user + system, in microseconds; None where nothing was promised.
    budget_us: float | None = None
    # What a hand-written server without validation or features took on the reference machine, and what Feast
    # 0.67 took.
    trial_us: float | None = None
    feast_us: float | None = None

    @property
    def repo_path(self) -> Path:
        return REPOS / self.repo

    @property
    def bare_service(self) -> str:
        """Name the look-ups that the bare server answers: as many views, else one, with 100 features each."""
        views = self.service.partition("_")[2].partition("x")[0]
        return f"lookups_{views}x100" if views.isdigit() and self.repo != SWEEP else "lookups_1x100"


SHAPES = {
    shape.service: shape
    for shape in (
        Shape("fs_1x10", "article", budget_us=22, feast_us=1_700),
        Shape("fs_5x100", "article", budget_us=60, trial_us=51, feast_us=15_300),
        Shape("fs_10x100", "article", budget_us=85, trial_us=71),
        Shape("fs_50x100", "article", budget_us=330, trial_us=287, feast_us=187_000),
        Shape("jaccard_python", ON_DEMAND, budget_us=45),
        Shape("jaccard_numpy", ON_DEMAND, budget_us=45),
        Shape("jaccard_sent_python", ON_DEMAND, budget_us=25),
        Shape("jaccard_sent_numpy", ON_DEMAND, budget_us=25),
        Shape("trivial_python", ON_DEMAND),
        Shape("trivial_numpy", ON_DEMAND),
        Shape("fs1", "article"),
        Shape("fs2", "article"),
        Shape("fs3", "article"),
        *(Shape(f"fs_{views}x100_bundled", BUNDLED) for views in (5, 10, 50)),
        *(Shape(f"fs{number}_bundled", BUNDLED) for number in (1, 2, 3)),
        Shape("lookups_1x10", "lookups"),
        Shape("lookups_1x100", "lookups", trial_us=16),
        Shape("lookups_5x100", "lookups", trial_us=29),
        Shape("lookups_10x100", "lookups", trial_us=48),
        Shape("lookups_50x100", "lookups", trial_us=198),
        Shape("sweep_base", SWEEP),
        *(Shape(f"sweep_{what}_{value}", SWEEP) for what, values in SWEPT.items() for value in values),
    )
}
# The article's shapes, rounded to 100 features a view, for which budgets were set.
ARTICLE = tuple(shape for shape in SHAPES.values() if shape.repo == "article" and shape.budget_us)


@cache
def service_plan(service: str) -> ServicePlan:
    """Compile a measured service from its feature repo."""
    return workspace_plan(SHAPES[service].repo_path).services[service]


@cache
def workspace_plan(repo: Path) -> WorkspacePlan:
    """Compile all services of a feature repo, once."""
    return plan_workspace(load_repo(repo))


def view_values(view: ViewPlan) -> NDArray[np.float64]:
    """Make the stored numbers of a view's rows, shape (POOL_ROWS, numbers of a row)."""
    seed = zlib.crc32(view.name.encode())
    numbers = len(view.layout.columns)
    return np.random.default_rng(seed).uniform(0, 1_000, (POOL_ROWS, numbers))


def encode_rows(view: ViewPlan, as_of_ns: int = AS_OF_NS) -> list[bytes]:
    """Pack the rows of a view as a batch job would have written them at that time."""
    if view.layout.json_columns:
        return encode_place_rows(view, POOL_ROWS, as_of_ns)
    builder = RowBuilder(view.layout, POOL_ROWS)
    builder.set_effective_ns(as_of_ns)
    values = view_values(view)
    if view.schema is not None:
        # All components are float64 sums here, so their slots lie side by side in the layout's order.
        builder.set_words(view.layout.columns[0].word, values)
    else:
        for place, column in enumerate(view.layout.columns):
            builder.set_numbers(column.name, values[:, place])
    return builder.build()


def row_texts(view: ViewPlan) -> list[str | None]:
    """Give a view's pool of rows as the store's wire has them."""
    return [base64.b64encode(row).decode() for row in encode_rows(view)]


def prepare_service(stand_in: StandInAddress, service: str) -> None:
    """Have the stand-in answer all tables of a service, whatever the key."""
    plan = service_plan(service)
    for place in plan.places:
        if place.view.attribute is None:
            stand_in.prepare(place.view.table, row_texts(place.view))
    for bundle in plan.bundles:
        stand_in.prepare_items(bundle.table, "k", bundle_items(bundle))


def bundle_items(bundle: Bundle) -> list[str]:
    """Give a bundle's pool of items, as JSON of all attributes but the key."""
    pools = [(view.attribute or "", row_texts(view)) for view in bundle.views]
    return [
        orjson.dumps({attribute: {"B": texts[number]} for attribute, texts in pools}).decode()
        for number in range(POOL_ROWS)
    ]


def request_stream(service: str, **load: Any) -> Stream:
    """Make the load of one service: a plain request for the vector, values and nothing else."""
    head, middle, tail = request_parts(service)
    verify = {"verify": "perf.data:vector_verifier", "verify_with": {"service": service}, "verify_every": 500}
    return Stream(service, PATH, head, tail, middle, **{**verify, **load})


def request_parts(service: str) -> tuple[str, str | None, str]:
    """Give a request's body around its key, and what stands between key and second key if there is one."""
    plan = service_plan(service)
    params, second = request_params(plan) if plan.on_demand else ({"joinKeyMap": {"user_id": "\n"}}, None)
    named = {"workspaceName": plan.workspace, "featureServiceName": service}
    return split_at_keys({"params": {**named, **params}}, second)


def split_at_keys(body: dict[str, Any], second: str | None) -> tuple[str, str | None, str]:
    """Give a body's text around the marks of its keys; the middle is None without a second one."""
    head, _, tail = orjson.dumps(body).decode().partition("\\n")
    if second is None:
        return head, None, tail
    middle, _, tail = tail.partition("\\t")
    return head, middle, tail


def expected_features(service: str, key: str) -> list[float]:
    """Compute one entity's vector the slow way: each feature by itself, number by number."""
    plan = service_plan(service)
    if plan.on_demand:
        return expected_values(plan, key, POOL_ROWS)
    rows = [pool[row_index(key, POOL_ROWS)] for pool in _pools(service)]
    return [sum(rows[place][number] for number in numbers) for place, numbers in _terms(service)]


def answer_bytes(service: str) -> int:
    """Give the length of an answer's body, as JSON without a blank too many."""
    features = expected_features(service, "user00000000")
    return len(orjson.dumps({"result": {"features": features}}))


@cache
def _pools(service: str) -> list[list[list[float]]]:
    """Give the stored numbers of each place's pool of rows."""
    return [view_values(place.view).tolist() for place in service_plan(service).places]


@cache
def _terms(service: str) -> list[tuple[int, list[int]]]:
    """Tell, for each feature in the answer's order, its place and the stored numbers it is the sum of."""
    plan = service_plan(service)
    numbers = [_numbers_by_feature(place.view) for place in plan.places]
    return [(output.place, numbers[output.place][output.feature]) for output in plan.inputs]


def _numbers_by_feature(view: ViewPlan) -> dict[str, list[int]]:
    if view.schema is None:
        return {column.name: [number] for number, column in enumerate(view.layout.columns)}
    found, first = {}, 0
    for feature, component in zip(view.schema.features, view.schema.components, strict=True):
        # Sums of floats have one component each, so features and components pair up.
        live = feature.spec.window.live_slots(AS_OF_NS, CLOCK_NS)
        found[feature.spec.name] = [first + slot for slot in live]
        first += component.window.slots
    return found


def vector_verifier(configuration: dict[str, Any]) -> Callable[[str, bytes], str | None]:
    """Make the generator's check of an answer's values: it gives the first problem, or None."""
    service = configuration["service"]
    plan = service_plan(service)

    def verify(key: str, body: bytes) -> str | None:
        got = orjson.loads(body)["result"]["features"]
        expected = expected_features(service, key)
        if len(got) != len(expected):
            return f"expected {len(expected)} features, got {len(got)}"
        for output, value, wanted in zip(plan.outputs, got, expected, strict=True):
            if not isinstance(value, float) or abs(value - wanted) > _RELATIVE_TOLERANCE * abs(wanted):
                return f"{output.name}: expected {wanted!r}, got {value!r}"
        return None

    return verify
