from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fastserve.plan.explain import Explanation, explain
from fastserve.plan.explain_text import explain_text
from fastserve.plan.explain_windows import WindowCost
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.plan.stores import TablePrefixes
from fastserve.sdk.repo import load_repo
from fastserve.tiles.layout import HEADER_BYTES, WORD_BYTES

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "explain"


@pytest.fixture
def fraud(shop_plan: WorkspacePlan) -> Explanation:
    return explain(shop_plan.services["fraud:v2"])


@pytest.mark.parametrize("service, file", [("fraud:v2", "fraud.txt"), ("users", "users.txt")])
def test_the_text_is_the_one_on_file(shop_plan: WorkspacePlan, service: str, file: str) -> None:
    assert explain_text(explain(shop_plan.services[service])) == (GOLDEN / file).read_text(encoding="utf-8")


def test_a_vector_s_cost_is_the_sum_of_its_rows(fraud: Explanation) -> None:
    assert fraud.keys == 5
    assert fraud.read_units == 5 * 0.5
    assert fraud.price_per_million_vectors_usd == 2.5 * 0.125
    assert fraud.row_bytes == sum(row.row_bytes for row in fraud.rows)
    assert fraud.item_bytes == sum(row.item_bytes for row in fraud.rows)


def test_the_price_of_a_read_unit_is_the_reader_s_to_say(shop_plan: WorkspacePlan) -> None:
    explanation = explain(shop_plan.services["fraud:v2"], price_per_million_read_units_usd=0.2)
    assert explanation.price_per_million_vectors_usd == 0.5
    text = explain_text(explanation)
    assert "0.5 USD per million vectors, at 0.2 USD per million read request units\n" in text
    assert "us-east-1" not in text


def test_an_item_s_bytes_are_its_names_its_key_and_its_values(fraud: Explanation) -> None:
    profile, spending, _, _, shop = fraud.rows
    assert profile.item_bytes == len("k") + 24 + len("v") + profile.row_bytes + 24  # a text in it
    assert spending.item_bytes == len("k") + 24 + len("v") + spending.row_bytes
    assert shop.item_bytes == len("id") + 24 + len("rating") + 10 + len("updated") + 24
    assert [row.variable_values for row in fraud.rows] == [1, 0, 0, 0, 0]


def test_rows_say_how_long_they_answer(fraud: Explanation) -> None:
    assert [(row.view, row.horizon, row.ttl) for row in fraud.rows] == [
        ("profile", None, "30d"),
        ("spending", "2d", None),
        ("spending", "2d", None),
        ("pair", "2d", None),
        ("shop", None, None),
    ]


def test_units_step_with_an_item_s_size(tmp_path: Path) -> None:
    def costs(features: int) -> tuple[float, int]:
        (tmp_path / "repo.py").write_text(
            "import fastserve as fs\n"
            'user = fs.Entity("user", join_keys=fs.Field("user_id", fs.String))\n'
            'source = fs.FileSource("source", path="x.csv", timestamp_field="at")\n'
            f'features = [fs.Attribute(f"f{{n}}", fs.Float64) for n in range({features})]\n'
            'view = fs.FeatureView("view", entities=user, source=source, features=features)\n'
            'service = fs.FeatureService("s", features=[view])\n',
            encoding="utf-8",
        )
        (row,) = explain(plan_workspace(load_repo(tmp_path)).services["s"]).rows
        return row.read_units, row.write_units

    assert costs(100) == (0.5, 1)
    assert costs(150) == (0.5, 2)
    assert costs(500) == (0.5, 4)  # 4,016 bytes of row
    assert costs(520) == (1.0, 5)


def windows_of(explanation: Explanation, view: str) -> list[WindowCost]:
    return [window for window in explanation.windows if window.view == view]


def test_a_view_s_windows_are_told_once_and_fill_its_rows(fraud: Explanation) -> None:
    day, month = windows_of(fraud, "spending")
    assert (day.window, day.hop, day.core, day.tails, day.slots) == ("1d", "1h", 0, 24, 24)
    assert (month.window, month.hop, month.core, month.tails, month.slots) == ("28d", "1d", 1, 2, 3)
    assert day.components == ("sum(amount)", "count(amount)")  # mean is made of the two
    spending = fraud.rows[1]
    fixed = HEADER_BYTES + day.row_bytes + month.row_bytes
    assert day.row_bytes == 2 * 24 * WORD_BYTES
    assert fixed <= spending.row_bytes < fixed + 24


def test_the_answer_s_order_and_types_are_the_plan_s(shop_plan: WorkspacePlan, fraud: Explanation) -> None:
    outputs = shop_plan.services["fraud:v2"].outputs
    assert [(line.name, line.dtype) for line in fraud.outputs] == [(o.name, str(o.dtype)) for o in outputs]
    assert fraud.outputs[1].made_of == "sum(amount) over 1d of spending"


def test_calls_are_counted_as_the_coalescer_cuts_them(tmp_path: Path) -> None:
    (tmp_path / "repo.py").write_text(
        "import fastserve as fs\n"
        'user = fs.Entity("user", join_keys=fs.Field("user_id", fs.String))\n'
        'source = fs.FileSource("source", path="x.csv", timestamp_field="at")\n'
        "def view(n):\n"
        '    feature = fs.Attribute("f", fs.Float64)\n'
        '    return fs.FeatureView(f"v{n}", entities=user, source=source, features=[feature])\n'
        "views = [view(n) for n in range(120)]\n"
        'large = fs.FeatureService("large", features=views)\n'
        'small = fs.FeatureService("small", features=views[:7])\n',
        encoding="utf-8",
    )
    plan = plan_workspace(load_repo(tmp_path))
    large = explain(plan.services["large"])
    # The 113 views that only `large` reads are three groups; the first call holds 7 + 37 + 38 keys.
    assert sorted(len(read.tables) for read in large.reads) == [7, 37, 38, 38]
    assert (large.keys, large.calls) == (120, 2)
    assert explain(plan.services["small"]).calls == 1


def test_json_holds_all_of_it_and_the_totals(fraud: Explanation) -> None:
    document = json.loads(json.dumps(fraud.to_json()))
    assert document["join_keys"][2] == {"name": "merchant_id", "dtype": "int64"}
    assert (document["keys"], document["read_units"], document["calls"]) == (5, 2.5, 1)
    assert document["price_per_million_vectors_usd"] == fraud.price_per_million_vectors_usd
    assert len(document["outputs"]) == 12
    assert document["windows"][0]["window"] == "1d"
    assert document["assumed"]["consistency"] == "eventual"


STREAMED = """
from datetime import timedelta
import fastserve as fs

user = fs.Entity("user", join_keys=fs.Field("user_id", fs.String))
pushed = fs.PushSource(
    "pushed",
    [fs.Field("user_id", fs.String), fs.Field("at", fs.Timestamp), fs.Field("amount", fs.Float64)],
    timestamp_field="at",
)
spending = fs.FeatureView(
    "spending",
    entities=[user],
    source=pushed,
    features=[
        fs.Aggregate(fs.Field("amount", fs.Float64), function, timedelta(days=days))
        for function in ("sum", "count") for days in (1, 7, 28, 356)
    ],
    aggregation_interval=timedelta(minutes=5),
)
amount = fs.Attribute("amount", fs.Float64)
latest = fs.FeatureView("latest", entities=[user], source=pushed, features=[amount])
service = fs.FeatureService("s", features=[spending, latest])
"""


@pytest.fixture
def streamed(tmp_path: Path) -> Explanation:
    (tmp_path / "features.py").write_text(STREAMED)
    (tmp_path / "fastserve.toml").write_text('workspace = "w"\n')
    return explain(plan_workspace(load_repo(tmp_path)).services["s"])


def test_a_stream_costs_two_keys_more_whatever_the_windows(streamed: Explanation) -> None:
    assert (streamed.keys, streamed.stream_keys, streamed.calls) == (4, 2, 1)
    assert (streamed.read_units, streamed.stream_read_units) == (3.5, 2.0)
    assert [row.read_units for row in streamed.rows] == [0.5, 1.0]  # attributes that are pushed to
    # A key `k`, a row `v` of 24 bytes, and its time `e`, a number of 19 digits.
    assert streamed.rows[1].item_bytes == 1 + 24 + 1 + 24 + 1 + 11
    assert streamed.price_per_million_vectors_usd == 3.5 * 0.125
    assert [(read.tables, read.block) for read in streamed.reads if read.block] == [
        (("w.spending.stream",), "the previous"),
        (("w.spending.stream",), "the current"),
    ]


def test_a_pushed_event_s_cost_grows_with_its_block(streamed: Explanation) -> None:
    spending, latest = streamed.streams
    assert (spending.block, spending.keys, spending.full_tiles) == ("2d", 2, 2 * 24 * 12)
    assert (spending.write_units, spending.full_write_units) == (1, 14)
    assert spending.full_read_units == 2 * 4
    assert (latest.keys, latest.read_units, latest.write_units) == (0, 0, 1)


def test_the_text_tells_keys_with_and_without_blocks(streamed: Explanation) -> None:
    text = explain_text(streamed)
    assert text == (GOLDEN / "streamed.txt").read_text(encoding="utf-8")
    document = json.loads(json.dumps(streamed.to_json()))
    assert (document["keys"], document["stream_keys"], document["streams"][0]["block"]) == (4, 2, "2d")


BUNDLED = """
import fastserve as fs

user = fs.Entity("user", join_keys=fs.Field("user_id", fs.String))
source = fs.FileSource("source", path="x.csv", timestamp_field="at")

def view(number, features, bundle):
    made = [fs.Attribute(f"f{n}", fs.Float64) for n in range(features)]
    return fs.FeatureView(f"v{number:02}", user, source, made, bundle=bundle)

views = [view(number, FEATURES, BUNDLE) for number in range(50)]
payee = views[0].with_name("payee").with_join_key_map({"user_id": "payee_id"})
everything = fs.FeatureService("all", features=views)
few = fs.FeatureService("few", features=[views[0], views[7], payee])
"""


def explained(folder: Path, bundle: str | None, features: int = 10) -> dict[str, Explanation]:
    text = BUNDLED.replace("BUNDLE", repr(bundle)).replace("FEATURES", str(features))
    (folder / "features.py").write_text(text)
    plan = plan_workspace(load_repo(folder))
    return {name: explain(service) for name, service in plan.services.items()}


def test_a_bundle_costs_a_key_and_its_item_and_says_what_it_would_cost_apart(tmp_path: Path) -> None:
    found = explained(tmp_path, "items")["all"]
    # 96 bytes a row (16 and ten numbers), and 5 for its attribute's name.
    assert (found.keys, found.calls, found.read_units) == (1, 1, 1.0)
    assert found.item_bytes == 25 + 50 * (96 + 5)
    (cost,) = found.bundles
    assert (cost.bundle, cost.table, cost.views_read) == ("items", "default.items", 50)
    assert (cost.read_units, cost.apart_keys, cost.apart_read_units) == (1.0, 50, 25.0)
    assert (cost.write_units, cost.refresh_units, cost.apart_refresh_units) == (5, 250, 50)
    # 200 write units at 0.625 are made good by 24 read units at 0.125, 41.7 times.
    assert cost.pays_from == pytest.approx(200 * 0.625 / (24 * 0.125))
    assert found.price_per_million_vectors_usd == found.bundled_price_per_million_vectors_usd == 0.125
    assert found.apart_price_per_million_vectors_usd == 25 * 0.125
    assert {row.write_units for row in found.rows} == {5}
    text = explain_text(found)
    assert "default.items (a bundle, 50 rows of its item)" in text
    assert "bundle items pays from 42 vectors of a key on between two writes of all its rows" in text


def test_views_apart_are_told_what_a_bundle_of_them_would_cost(tmp_path: Path) -> None:
    apart, bundled = explained(tmp_path, None)["all"], explained(tmp_path, "items")["all"]
    assert (apart.keys, apart.read_units) == (50, 25.0)
    (cost,) = apart.bundles
    assert (cost.bundle, cost.table) == (None, None)
    assert apart.bundled_price_per_million_vectors_usd == bundled.price_per_million_vectors_usd
    assert apart.apart_price_per_million_vectors_usd == bundled.apart_price_per_million_vectors_usd
    assert cost.pays_from == bundled.bundles[0].pays_from


def test_who_reads_few_rows_of_an_item_pays_for_all_of_it(tmp_path: Path) -> None:
    few = explained(tmp_path, "items")["few"]
    (cost,) = few.bundles
    assert (cost.views_read, len(cost.views), cost.keys, cost.apart_keys) == (2, 50, 2, 3)
    assert (few.keys, few.read_units, cost.apart_read_units) == (2, 2.0, 1.5)
    assert cost.pays_from is None
    assert "bundle items never pays: its reads cost no less." in explain_text(few)


def test_an_item_that_is_too_large_is_told(tmp_path: Path) -> None:
    found = explained(tmp_path, "items")["few"]
    (cost,) = found.bundles
    assert cost.fits
    large = replace(cost, item_bytes=400_000)
    text = explain_text(replace(found, bundles=(large,)))
    assert "bundle items is too large: 400,000 bytes, an item has room for 399,360." in text


def test_an_item_that_any_service_wants_consistent_is_priced_so_for_all(tmp_path: Path) -> None:
    text = STREAMED.replace("features=[amount])", 'features=[amount], bundle="items")')
    (tmp_path / "features.py").write_text(
        text.partition("service =")[0] + 'file = fs.FileSource("file", path="x.csv", timestamp_field="at")\n'
        'still = fs.FeatureView("still", user, file, [amount], bundle="items")\n'
        'fs.FeatureService("both", features=[still, latest])\n'
        'fs.FeatureService("one", features=[still])\n'
    )
    plan = plan_workspace(load_repo(tmp_path))
    one = explain(plan.services["one"])
    assert (one.read_units, one.items[0].apart_read_units) == (1.0, 0.5)
    assert "consistent where a table is pushed to" in explain_text(one)
    assert one.to_json()["assumed"]["consistency"] == "strong where pushed to, else eventual"


def test_views_that_are_cached_otherwise_are_no_bundle_to_be(tmp_path: Path) -> None:
    text = "from datetime import timedelta\n" + BUNDLED.replace("BUNDLE", "None").replace("FEATURES", "2")
    cached = text.replace("bundle=bundle", "cache_ttl=None if number else timedelta(minutes=1)")
    (tmp_path / "features.py").write_text(cached)
    (cost,) = explain(plan_workspace(load_repo(tmp_path)).services["all"]).bundles
    assert len(cost.views) == 49


def test_no_bundle_is_proposed_that_there_can_t_be(tmp_path: Path) -> None:
    text = BUNDLED.replace("BUNDLE", "None").replace("FEATURES", "3").partition("payee =")[0]
    (tmp_path / "features.py").write_text(
        f"{text}"
        "from datetime import timedelta\n"
        'made = [fs.Attribute("f", fs.Float64)]\n'
        'kept = fs.FeatureView("kept", user, source, made, cache_ttl=timedelta(minutes=5))\n'
        'hot = fs.FeatureView("hot", user, source, made, store="hot")\n'
        'one = fs.FeatureService("one", features=[views[0], views[1], kept, hot])\n'
    )
    plan = plan_workspace(load_repo(tmp_path), TablePrefixes("", {"hot": ""}))
    (cost,) = explain(plan.services["one"]).bundles
    assert cost.views == ("v00", "v01")
