"""Feature views: what other rooms read from them, and every rule their parts must keep."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from fastserve import (
    Aggregate,
    Attribute,
    AttributesFormat,
    Entity,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    PushSource,
    String,
    Timestamp,
)
from fastserve.errors import InvariantError
from fastserve.sdk.checks import collecting
from fastserve.sdk.view_rules import check_transformation
from tests.sdk.authoring import fault_of

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
AMOUNT = Field("amount", Float64)
USER = Entity("user", Field("user_id", String))
SHOP = Entity("shop", [Field("shop_id", Int64), Field("country", String)])
FILES = FileSource("files", "f.parquet", timestamp_field="ts")
UNTIMED = FileSource("untimed", "f.parquet")
PUSHED = PushSource(
    "pushed",
    [Field("user_id", String), Field("amount", Float64), Field("ts", Timestamp)],
    timestamp_field="ts",
)
AGE = Attribute("age", Int64)
SUM = Aggregate(AMOUNT, "sum", DAY)


async def coroutine(table: Any) -> Any:
    return table


def two_arguments(table: Any, other: Any) -> Any:
    return table, other


NAMES: dict[str, object] = {
    "AMOUNT": AMOUNT, "USER": USER, "SHOP": SHOP, "FILES": FILES, "UNTIMED": UNTIMED, "PUSHED": PUSHED,
    "AGE": AGE, "SUM": SUM, "coroutine": coroutine, "two_arguments": two_arguments,
}  # fmt: skip


def test_an_aggregate_view_offers_what_the_plan_reads() -> None:
    view = FeatureView(
        "v",
        [USER, SHOP],
        FILES,
        [SUM, Aggregate(AMOUNT, "count", 7 * DAY, name="n")],
        aggregation_interval=HOUR,
    )
    assert view.join_keys == (Field("user_id", String), Field("shop_id", Int64), Field("country", String))
    assert view.is_aggregate
    assert view.feature_names == ("amount_sum_1d_1h", "n")
    assert (view.output_type("amount_sum_1d_1h"), view.output_type("n")) == (Float64, Int64)
    assert view.feature("n").name == "n"
    assert view.aggregates == view.features
    assert view.attributes == ()
    assert view.input_columns == (*view.join_keys, AMOUNT)
    assert view.timestamp_field == "ts"
    assert (view.leading_edge, view.horizon, view.row_format) == ("now", 2 * DAY, "packed")
    assert view.valid


def test_an_attribute_view_offers_what_the_plan_reads() -> None:
    view = FeatureView(
        "v", USER, UNTIMED, [AGE, Attribute("name", String)], timestamp_field="changed", ttl=7 * DAY
    )
    assert not view.is_aggregate
    assert view.attributes == view.features
    assert view.aggregates == ()
    assert view.output_type("name") == String
    assert (view.timestamp_field, view.ttl) == ("changed", 7 * DAY)
    assert view.input_columns == (Field("user_id", String), Field("age", Int64), Field("name", String))


def test_the_views_timestamp_field_goes_before_the_sources() -> None:
    assert FeatureView("v", USER, FILES, [AGE], timestamp_field="other").timestamp_field == "other"


def test_a_feature_that_the_view_lacks_is_our_fault() -> None:
    with pytest.raises(InvariantError, match="view v has no feature nope"):
        FeatureView("v", USER, FILES, [AGE]).feature("nope")


def test_a_column_may_be_counted_that_is_a_join_key() -> None:
    count = Aggregate(Field("user_id", String), "count", DAY)
    assert FeatureView("v", USER, FILES, [count], aggregation_interval=HOUR).input_columns == USER.join_keys


def test_a_start_time_is_kept_in_utc() -> None:
    plus_two = timezone(timedelta(hours=2))
    for given in (datetime(2013, 1, 1, 10), datetime(2013, 1, 1, 12, tzinfo=plus_two)):  # noqa: DTZ001 - the point
        view = FeatureView("v", USER, FILES, [AGE], start_time=given)
        assert view.start_time == datetime(2013, 1, 1, 10, tzinfo=UTC)


def test_the_files_of_a_view_are_its_sources_or_its_push_sources_history() -> None:
    history = PushSource("p", PUSHED.schema, FILES, "ts")
    assert FeatureView("v", USER, FILES, [AGE]).batch_source is FILES
    assert FeatureView("v", USER, history, [Attribute(AMOUNT)]).batch_source is FILES
    assert FeatureView("v", USER, PUSHED, [Attribute(AMOUNT)]).batch_source is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM files",
        "select * from \"files\" where a = {'b': 1}.b",
        "SELECT * FROM {source}",
        "WITH x AS (FROM Files) FROM x",
    ],
)
def test_sql_names_its_source_by_its_name_or_by_a_place_for_it(sql: str) -> None:
    assert FeatureView("v", USER, FILES, [AGE], transformation=sql).transformation == sql


@pytest.mark.parametrize(
    "function",
    [lambda table: table, functools.partial(two_arguments, other=1), max, NAMES.get],
    ids=["lambda", "partial", "built-in", "method"],
)
def test_a_function_of_one_table_is_a_transformation(function: Any) -> None:
    assert FeatureView("v", USER, FILES, [AGE], transformation=function).transformation is function


def test_a_view_of_a_pushed_source_may_be_transformed_into_other_columns() -> None:
    view = FeatureView("v", SHOP, PUSHED, [AGE], transformation="FROM pushed")
    assert view.valid


def test_an_attributes_format_keeps_the_names_of_an_existing_table() -> None:
    layout = AttributesFormat(partition_key="pk", sort_key="sk", timestamp_attribute="updated-at")
    assert layout == AttributesFormat("pk", "sk", "updated-at")
    assert hash(layout) == hash(AttributesFormat("pk", "sk", "updated-at"))
    assert layout != AttributesFormat("pk")
    view = FeatureView("v", SHOP, FILES, [AGE], row_format=layout, table="legacy.users-2")
    assert (view.row_format, view.table) == (layout, "legacy.users-2")


INTERVAL = "aggregation_interval=HOUR"
WHOLE = "a whole multiple of aggregation_interval 1h"


@pytest.mark.parametrize(
    "arguments,message",
    [
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", 90 * MINUTE)], {INTERVAL}',
         f"time_window of 'amount_sum_90m_1h' (expected {WHOLE}, got 90m)"),
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", 30 * MINUTE)], {INTERVAL}',
         f"time_window of 'amount_sum_30m_1h' (expected {WHOLE}, got 30m)"),
        ("USER, FILES, [SUM], aggregation_interval=MINUTE / 2",
         "aggregation_interval (expected at least 1m, got 30s)"),
        ("USER, FILES, [SUM], aggregation_interval=-HOUR",
         "aggregation_interval (expected a timedelta above zero, got -1h)"),
        ("USER, FILES, [SUM], aggregation_interval=60",
         "aggregation_interval (expected a timedelta above zero, got 60)"),
        ("USER, FILES, [SUM]",
         "aggregation_interval (expected the length of a tile, such as timedelta(hours=1), got None)"),
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", TimeWindow(DAY, -90 * MINUTE))], {INTERVAL}',
         f"offset of 'amount_sum_1d_offset_90m_1h' (expected {WHOLE}, got -90m)"),
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", TimeWindowSeries(-DAY, HOUR, -HOUR, HOUR/2))], {INTERVAL}',
         f"step_size of 'amount_sum_1h_series_1d_to_1h_step_30m_1h' (expected {WHOLE}, got 30m)"),
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", LifetimeWindow(), tail_hop=HOUR)], {INTERVAL}',
         "tail_hop of 'amount_sum_lifetime_1h' (expected none, as a lifetime has no far end, got 1h)"),
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", DAY, tail_hop=90 * MINUTE)], {INTERVAL}',
         f"tail_hop of 'amount_sum_1d_1h' (expected {WHOLE}, got 90m)"),
        (f'USER, FILES, [Aggregate(AMOUNT, "sum", DAY, tail_hop=2 * DAY)], {INTERVAL}',
         "tail_hop of 'amount_sum_1d_1h' (expected at most the window, 1d, got 2d)"),
        (f"USER, UNTIMED, [SUM], {INTERVAL}",
         "timestamp_field (expected the column with an event's time, here or in the source, got None)"),
        (f"USER, FILES, [SUM], {INTERVAL}, ttl=DAY",
         "ttl (expected none, as windows say which events count, got 1d)"),
        (f"USER, FILES, [SUM], {INTERVAL}, row_format=AttributesFormat('pk')",
         ('row_format (expected "packed", as aggregates are stored as tiles, '
         "got AttributesFormat('pk', None, None))")),
        (f"USER, FILES, [SUM], {INTERVAL}, batch_schedule=7 * DAY",
         "horizon (expected at least batch_schedule 7d, or rows age before the next, got 2d)"),
        ("USER, FILES, [SUM, AGE], aggregation_interval=HOUR",
         "features (expected only attributes or only aggregates, got Attribute('age', Int64))"),
        ("USER, FILES, [AGE, SUM]",
         "features (expected only attributes or only aggregates, got Aggregate('amount', 'sum', 1d))"),
        ("USER, FILES, [AGE, Attribute('age', String)]",
         "the feature name 'age' stands there twice (expected different names)"),
        (f"USER, FILES, [SUM, SUM], {INTERVAL}",
         "the feature name 'amount_sum_1d_1h' stands there twice (expected different names)"),
        ("USER, FILES, [Attribute('user_id', String)]",
         "the feature 'user_id' is named like a join key (expected another name)"),
        (f"USER, FILES, [Aggregate(AMOUNT, 'sum', DAY, name='user_id')], {INTERVAL}",
         "the feature 'user_id' is named like a join key (expected another name)"),
        (f"USER, FILES, [Aggregate(Field('a' * 115, Int64), 'sum', DAY)], {INTERVAL}",
         f"feature name (expected at most 120 characters; name= shortens it, got '{'a' * 62}…)"),
        (f"USER, FILES, [SUM, Aggregate(Field('amount', Int64), 'max', DAY)], {INTERVAL}",
         f"column 'amount' (expected Float64 as at {AMOUNT.location}, got Int64)"),
        (f"USER, FILES, [Aggregate(Field('user_id', Int64), 'count', DAY)], {INTERVAL}",
         f"column 'user_id' (expected String as at {USER.location}, got Int64)"),
        ("USER, FILES, [Attribute('ts', String)]",
         "column 'ts' (expected Timestamp, for it is the timestamp_field, got String)"),
        ("USER, FILES, []", "features (expected at least one Attribute or Aggregate, got [])"),
        ("USER, FILES, ['age']", "features[0] (expected Attribute or Aggregate, got 'age')"),
        ("USER, FILES, [Attribute]",
         "features[0] (expected Attribute or Aggregate, got the class Attribute)"),
        ("USER, FILES, [Field('age', Int64)]",
         "features[0] (expected Attribute or Aggregate, got Field('age', Int64))"),
        ("[], FILES, [AGE]", "entities (expected at least one Entity, got [])"),
        ("'user', FILES, [AGE]", "entities (expected a list of Entity, got 'user')"),
        ("[USER, 'shop'], FILES, [AGE]", "entities[1] (expected Entity, got 'shop')"),
        ("[USER, Entity('buyer', Field('user_id', Int64))], FILES, [AGE]",
         "entities: the join key 'user_id' is in 'user' and in 'buyer' (expected each join key once)"),
        ("[USER, USER], FILES, [AGE]",
         "entities: the join key 'user_id' is in 'user' and in 'user' (expected each join key once)"),
        ("USER, 'f.parquet', [AGE]",
         "source (expected a FileSource, a PushSource or an ExternalSource, got 'f.parquet')"),
        ("USER, FILES, [AGE], ttl=timedelta(0)", "ttl (expected a timedelta above zero, got 0s)"),
        ("USER, FILES, [AGE], ttl=-DAY", "ttl (expected a timedelta above zero, got -1d)"),
        ("USER, FILES, [AGE], ttl=3600", "ttl (expected a timedelta above zero, got 3600)"),
        ("USER, FILES, [AGE], ttl=36_501 * DAY", "ttl (expected a timedelta of at most 36500d, got 36501d)"),
        ("USER, FILES, [AGE], cache_ttl=36_501 * DAY",
         "cache_ttl (expected a timedelta of at most 36500d, got 36501d)"),
        ("USER, UNTIMED, [AGE], ttl=DAY",
         "timestamp_field (expected the column with a row's time, which ttl counts from, got None)"),
        ("USER, FILES, [AGE], aggregation_interval=HOUR",
         "aggregation_interval (expected none, as attributes have no tiles, got 1h)"),
        ("USER, FILES, [AGE], leading_edge='last_complete_tile'",
         "leading_edge (expected none or \"now\", as attributes have no windows, got 'last_complete_tile')"),
        (f"USER, FILES, [SUM], {INTERVAL}, leading_edge='later'",
         "leading_edge (expected \"now\" or \"last_complete_tile\", got 'later')"),
        (f"USER, FILES, [SUM], {INTERVAL}, horizon=timedelta(0)",
         "horizon (expected a timedelta above zero, got 0s)"),
        ("USER, FILES, [AGE], batch_schedule=timedelta(0)",
         "batch_schedule (expected a timedelta above zero, got 0s)"),
        ("USER, PUSHED, [Attribute(AMOUNT)], batch_schedule=DAY",
         "batch_schedule (expected none, or a batch_source in the PushSource, got 1d)"),
        ("USER, FILES, [AGE], start_time='2013-01-01'", "start_time (expected a datetime, got '2013-01-01')"),
        ("USER, FILES, [AGE], row_format='json'",
         "row_format (expected \"packed\", an AttributesFormat or a FeastFormat, got 'json')"),
        ("USER, FILES, [AGE], row_format=AttributesFormat",
         ('row_format (expected "packed", an AttributesFormat or a FeastFormat, '
          "got the class AttributesFormat)")),
        ("USER, FILES, [AGE], row_format=AttributesFormat('pk', 'sk')",
         "sort_key (expected none, as the view has one join key, got 'sk')"),
        ("SHOP, FILES, [AGE], row_format=AttributesFormat('age', 'sk')",
         "partition_key (expected a name that no feature has, got 'age')"),
        ("USER, FILES, [AGE], table='a b'", "table (expected 3 to 255 letters, digits and _ . -, got 'a b')"),
        ("USER, FILES, [AGE], bundle='a b'",
         "bundle (expected letters, digits and _, no digit first, at most 120 characters, got 'a b')"),
        ("USER, FILES, [AGE], bundle='b', table='t_1'",
         "table (expected none, as the bundle has the table, got 't_1')"),
        ("USER, FILES, [AGE], bundle='b', row_format=AttributesFormat('pk')",
         ('row_format (expected "packed", as rows of a bundle share an item, '
         "got AttributesFormat('pk', None, None))")),
        ("USER, FILES, [AGE], cache_ttl=timedelta(0)", "cache_ttl (expected a timedelta above zero, got 0s)"),
        ("USER, FILES, [AGE], stale_ttl=DAY", "stale_ttl (expected none without a cache_ttl, got 1d)"),
        ("USER, FILES, [AGE], cache_ttl=DAY, stale_ttl=HOUR",
         "stale_ttl (expected at least the cache_ttl 1d, got 1h)"),
        ("USER, PUSHED, [Attribute(AMOUNT)], cache_ttl=HOUR",
         "cache_ttl (expected none without cache_streamed=True, as pushed events would wait, got 1h)"),
        ("USER, FILES, [AGE], cache_ttl=HOUR, cache_streamed=True",
         "cache_streamed (expected False without a PushSource, got True)"),
        ("USER, PUSHED, [Attribute(AMOUNT)], cache_streamed=True",
         "cache_streamed (expected none without a cache_ttl, got True)"),
        ("USER, FILES, [AGE], cache_ttl=HOUR, cache_streamed=1", "cache_streamed (expected bool, got 1)"),
        ("USER, FILES, [AGE], table=''", "table (expected a str that isn't empty, or None, got '')"),
        ("USER, FILES, [AGE], timestamp_field=5",
         "timestamp_field (expected a str that isn't empty, or None, got 5)"),
        ("USER, FILES, [AGE], transformation='SELECT 1'",
         "transformation (expected SQL that reads FROM {source} or FROM files, got 'SELECT 1')"),
        ("USER, FILES, [AGE], transformation='FROM profiles'",
         "transformation (expected SQL that reads FROM {source} or FROM files, got 'FROM profiles')"),
        ("USER, FILES, [AGE], transformation=5",
         "transformation (expected SQL as a str, or a function of a pyarrow.Table, got 5)"),
        ("USER, FILES, [AGE], transformation=dict",
         "transformation (expected SQL as a str, or a function of a pyarrow.Table, got the class dict)"),
        ("SHOP, PUSHED, [Attribute(AMOUNT)]",
         ("column 'shop_id' (expected one of source 'pushed': user_id, amount, ts, "
         "got Field('shop_id', Int64))")),
        ("USER, PUSHED, [AGE]",
         "column 'age' (expected one of source 'pushed': user_id, amount, ts, got Field('age', Int64))"),
        ("USER, PUSHED, [Attribute('amount', Int64)]",
         "column 'amount' (expected Float64 as in source 'pushed', got Int64)"),
        ("USER, PUSHED, [Attribute(AMOUNT)], timestamp_field='time'",
         "timestamp_field (expected a column of the schema: user_id, amount, ts, got 'time')"),
    ],
)  # fmt: skip
def test_a_wrong_view_says_what_was_expected_and_what_came(arguments: str, message: str) -> None:
    assert fault_of(f'FeatureView("v", {arguments})', **NAMES) == f"FeatureView 'v': {message}"


@pytest.mark.parametrize("function", ["coroutine", "two_arguments", "lambda: None"])
def test_a_function_that_cannot_be_called_with_a_table_is_refused(function: str) -> None:
    message = fault_of(f'FeatureView("v", USER, FILES, [AGE], transformation={function})', **NAMES)
    assert message.startswith("FeatureView 'v': transformation (expected a function ")


@pytest.mark.parametrize("name", ["1st", "a.b", "a:b", "", "v" * 121])
def test_a_views_name_is_an_identifier(name: str) -> None:
    assert "name (expected letters, digits and _" in fault_of(
        f"FeatureView({name!r}, USER, FILES, [AGE])", **NAMES
    )


@pytest.mark.parametrize(
    "expression,message",
    [
        ('AttributesFormat("a", "a")',
         ("AttributesFormat: partition_key, sort_key and timestamp_attribute "
         "(expected different names, got ('a', 'a'))")),
        ('AttributesFormat("")',
         "AttributesFormat: partition_key (expected a str that isn't empty, or None, got '')"),
        ('AttributesFormat("ä" * 128)',
         f"AttributesFormat: partition_key (expected at most 255 bytes, got '{'ä' * 62}…)"),
    ],
)  # fmt: skip
def test_a_wrong_attributes_format_says_what_was_expected(expression: str, message: str) -> None:
    assert fault_of(expression) == message


def test_while_collecting_every_mistake_of_a_view_is_one_message() -> None:
    with collecting() as collector:
        view = FeatureView(
            "bad name",
            ["user"],  # type: ignore[list-item]
            None,  # type: ignore[arg-type]
            [Aggregate(Field("a", "int"), "median", 7)],  # type: ignore[arg-type]
            ttl=-DAY,
            aggregation_interval=5,  # type: ignore[arg-type]
            row_format=AttributesFormat("a", "a"),
        )
    assert not view.valid
    assert [error.message.partition(" (")[0] for error in collector.errors] == [
        "Field 'a': dtype",
        "Aggregate: function",
        "Aggregate: time_window",
        "AttributesFormat: partition_key, sort_key and timestamp_attribute",
        "FeatureView 'bad name': name",
        "FeatureView 'bad name': source",
        "FeatureView 'bad name': ttl",
        "FeatureView 'bad name': aggregation_interval",
        "FeatureView 'bad name': entities[0]",
        "FeatureView 'bad name': row_format",
    ]


def test_a_mistake_in_a_part_is_not_told_again_by_the_view() -> None:
    with collecting() as collector:
        FeatureView(
            "v",
            Entity("user", Field("user_id", Float64)),
            PushSource("p", [Field("user_id", Float64), Field("a", "x")]),  # type: ignore[arg-type]
            [Attribute("a", "x"), Attribute("user_id", "y")],  # type: ignore[call-overload]
        )
    assert len(collector.errors) == 4


def test_a_builtin_without_a_signature_is_believed() -> None:
    from fastserve.sdk.checks import Checks

    checks = Checks("FeatureView")
    assert check_transformation(checks, dict.__new__, None) is not None
    assert checks.valid
