"""The same views in bundles and in tables of their own: the same vectors, whatever rows are there.

Rows are written by what the batch job writes with, some of them absent; services read all views of a bundle,
some of them, or one under another join key; some beside views that are in no bundle.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import Attribute, FeatureService, FeatureView
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.putting import destination, put_made
from fastserve.plan.service import plan_workspace
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.reference import FeatureViewReference
from fastserve.sdk.repo import Repo
from fastserve.store.url import open_store
from fastserve.tiles.windows import HOUR_NS
from tests.serving.fake_store import own_row
from tests.support.plans import AS_OF_NS, NOW_NS, TTL, aggregate_view, all_aggregates, attribute_view
from tests.support.served import Vector, dynamodb_url, serving

KEYS = ("a", "b", "c", "d|e", "ü")
COLUMNS = (
    ("a_int",),
    ("b_float", "a_int"),
    ("d_text",),
    ("c_single", "e_bool", "f_time"),
    ("d_text", "g_array", "h_struct"),
)


def views_of(*, bundled: bool, projected: bool) -> list[FeatureView]:
    """Return five views of attributes and two of aggregates, most of them in one of two bundles."""
    names = ("one", "two", "one", "one", None)
    attributes = [
        _in_bundle(attribute_view(f"v{number}", columns, ttl=TTL if number % 2 else None), name, bundled)
        for number, (columns, name) in enumerate(zip(COLUMNS, names, strict=True))
    ]
    sums = all_aggregates([timedelta(hours=3)])[:4]
    aggregates = [
        _in_bundle(aggregate_view("sums", sums), "one", bundled),
        _in_bundle(aggregate_view("more", sums[:2]), "two", bundled),
    ]
    # What nobody reads makes the items large, so that only the others are asked for.
    unread = [Attribute(f"f{number}", attributes[0].attributes[0].dtype) for number in range(60)]
    wide = FeatureView("wide", attributes[0].entities, attributes[0].source, unread)
    made = [*attributes, *aggregates]
    return [*made, _in_bundle(wide, "two", bundled)] if projected else made


def _in_bundle(view: FeatureView, name: str | None, bundled: bool) -> FeatureView:
    return FeatureView(
        view.name,
        view.entities,
        view.source,
        view.attributes or view.aggregates,
        ttl=view.ttl,
        aggregation_interval=view.aggregation_interval,
        horizon=view.horizon,
        bundle=name if bundled else None,
    )


def repo_of(workspace: str, *, bundled: bool, projected: bool) -> Repo:
    """Return a repo whose services read the views in many ways."""
    views = {view.name: view for view in views_of(bundled=bundled, projected=projected)}
    other = views["v2"].with_name("payee_v2").with_join_key_map({"user_id": "payee_id"})
    asked: dict[str, list[FeatureView | FeatureViewReference]] = {
        "all": [view for name, view in views.items() if not name.startswith("wide")],
        "some": [views["v0"], views["sums"], views["v4"]],
        "one": [views["v3"]],
        "payee": [views["v2"], other, views["more"]],
    }
    services = {name: FeatureService(name, features=features) for name, features in asked.items()}
    return Repo(Path(), workspace, {}, {}, views, services, {})


def row_for(view: ViewPlan, key: str, age_ns: int) -> bytes:
    return own_row(view, key, AS_OF_NS - age_ns)


Rows = Mapping[tuple[str, str], int]
"""By view and key how much older than usual a row is."""


async def vectors(repo: Repo, url: str, rows: Rows, pairs: Sequence[tuple[str, str]]) -> list[list[Vector]]:
    """Put the rows, and return the vectors of all services."""
    async with AsyncExitStack() as stack:
        store = await open_store(url)
        stack.push_async_callback(store.close)
        await execute(await plan_apply(repo, store), store)
        for view in repo.views.values():
            plan = plan_view(view, repo.workspace, store.table_prefix)
            made = [
                (plan.key_text([key]), row_for(plan, key, age_ns))
                for (name, key), age_ns in rows.items()
                if name == view.name
            ]
            if made:
                texts, packed = zip(*made, strict=True)
                not_put = await put_made(store, destination(plan), [(list(texts), list(packed))])
                assert not_put.keys == []
        worker = await stack.enter_async_context(serving(repo, url))
        asked = [{"user_id": user, "payee_id": payee} for user, payee in pairs]
        only_user = [{"user_id": user} for user, _ in pairs]
        return list(
            await asyncio.gather(
                *[
                    worker.vectors(name, asked if name == "payee" else only_user, NOW_NS)
                    for name in repo.services
                ]
            )
        )


def the_same(url: str, number: int, data: st.DataObject) -> None:
    """Draw rows and requests; bundled and apart they give the same vectors."""
    projected = data.draw(st.booleans(), label="projected")
    apart = repo_of(f"apart{number}", bundled=False, projected=projected)
    bundled = repo_of(f"bundled{number}", bundled=True, projected=projected)
    places = st.tuples(st.sampled_from(sorted(apart.views)), st.sampled_from(KEYS))
    ages = st.sampled_from([0, 1, 4 * HOUR_NS, 6 * HOUR_NS, 72 * HOUR_NS])
    rows = data.draw(st.dictionaries(places, ages), label="rows")
    pair = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS))
    pairs = data.draw(st.lists(pair, min_size=1, max_size=5), label="asked")

    async def both() -> tuple[list[list[Vector]], list[list[Vector]]]:
        return (await vectors(apart, url, rows, pairs), await vectors(bundled, url, rows, pairs))

    expected, found = asyncio.run(both())
    assert found == expected


def test_views_in_bundles_give_the_vectors_of_views_apart() -> None:
    numbers = count()

    @settings(deadline=None, max_examples=25)
    @given(st.data())
    def hold(data: st.DataObject) -> None:
        the_same(f"local:{name}/store?sync=off", next(numbers), data)

    with tempfile.TemporaryDirectory() as name:
        hold()


def test_so_they_do_over_dynamodb() -> None:
    numbers = count()

    @settings(deadline=None, max_examples=6)
    @given(st.data())
    def hold(data: st.DataObject) -> None:
        the_same(url, next(numbers), data)

    with dynamodb_url() as url:
        hold()


def test_a_service_reads_one_key_of_each_bundle_and_names_what_it_reads_of_wide_ones() -> None:
    plan = plan_workspace(repo_of("w", bundled=True, projected=False))
    assert {name: service.key_count for name, service in plan.services.items()} == {
        "all": 3,
        "some": 2,
        "one": 1,
        "payee": 3,
    }
    assert [group.projected for group in plan.groups if group.attributes] == [False, False]
    wide = plan_workspace(repo_of("w", bundled=True, projected=True))
    assert [group.projected for group in wide.groups if group.attributes] == [False, True]
