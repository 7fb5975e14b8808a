"""DuckDB's answer to the twin's questions: the same windows and functions, said in SQL.

Nothing of the twin's arithmetic is used here, so where both agree neither has a slip of its own. SQL has no
sketches: for them it gives the exact figure that they approximate.

Invariants
1. A row of ``events`` is one event: key, t (nanoseconds since the epoch), secondary, and a column per type.
2. NaN is one value, above all others, in DuckDB as in the documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from tests.differential.twin import Lifetime, RawEvent, Rules, Series, Span, Wanted

DAY_NS = 86_400 * 10**9
HOUR_NS = 3_600 * 10**9

COLUMNS: Mapping[str, str] = {
    "amount": "DOUBLE",
    "units": "BIGINT",
    "kind": "VARCHAR",
    "flag": "BOOLEAN",
    "seen": "BIGINT",
    "score": "DOUBLE",
    "shop": "VARCHAR",
    "shelf": "BIGINT",
}
FLOATS = frozenset({"amount", "score"})


def take_events(connection: duckdb.DuckDBPyConnection, events: Iterable[RawEvent]) -> None:
    """Make these events, and no others, DuckDB's."""
    columns = ", ".join(f"{name} {dtype}" for name, dtype in COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE events (key VARCHAR, t BIGINT, {columns})")
    rows = [[e.key, e.time_ns, *(e.values.get(name) for name in COLUMNS)] for e in events]
    if rows:
        marks = ", ".join("?" * (len(COLUMNS) + 2))
        connection.executemany(f"INSERT INTO events VALUES ({marks})", rows)


def ask(connection: duckdb.DuckDBPyConnection, rules: Rules, wanted: Wanted, key: Any, time_ns: int) -> Any:
    """Return what DuckDB makes of one aggregate."""
    period = wanted.period
    if isinstance(period, Series):
        spans = [
            Span(period.size_ns, period.start_ns + period.size_ns + number * period.step_ns)
            for number in range((period.end_ns - period.start_ns - period.size_ns) // period.step_ns + 1)
        ]
        return [ask_window(connection, rules, wanted, key, time_ns, span) for span in spans]
    return ask_window(connection, rules, wanted, key, time_ns, period)


def ask_window(
    connection: duckdb.DuckDBPyConnection,
    rules: Rules,
    wanted: Wanted,
    key: Any,
    time_ns: int,
    period: Span | Lifetime,
) -> Any:
    """Return what DuckDB makes of one window."""
    where = f"key = $key AND {_window_sql(rules, wanted, period)}"
    given = {"key": key, "now": time_ns}
    if wanted.secondary is None:
        return connection.execute(f"SELECT {_function_sql(wanted, where)}", given).fetchall()[0][0]
    name = wanted.secondary
    keys = f"SELECT DISTINCT {name} AS s FROM events WHERE {where} AND {name} IS NOT NULL"
    if wanted.function == "secondary_keys":
        value = "s"
    else:
        value = _function_sql(wanted, f"{where} AND {name} = keys.s")
    rows = connection.execute(f"SELECT {value} FROM ({keys}) AS keys ORDER BY s", given).fetchall()
    return [row[0] for row in rows] or None


def _window_sql(rules: Rules, wanted: Wanted, period: Span | Lifetime) -> str:
    """Return the condition that an event is inside, with ``$now`` for the time of the request.

    The open tile is a whole one: what counts is where an event's tile begins.
    """
    tile = f"(t - t % {rules.interval_ns})"
    floor = "({0} - ({0}) % {1})".format
    end = f"{tile} < {floor('$now', rules.interval_ns)}" if rules.last_complete_tile else f"{tile} < $now"
    if isinstance(period, Lifetime):
        return end
    if wanted.hop_ns is not None:
        hop = wanted.hop_ns
    elif rules.last_complete_tile:
        hop = rules.interval_ns
    else:
        days = period.size_ns / DAY_NS
        usual = DAY_NS if days >= 12 else HOUR_NS if days >= 0.5 else HOUR_NS // 12
        hop = (usual + rules.interval_ns - 1) // rules.interval_ns * rules.interval_ns
    start = floor(f"$now - {period.size_ns - period.offset_ns}", hop)
    if period.offset_ns:
        end = f"t < {floor(f'$now - {-period.offset_ns}', hop)}"
    return f"t >= {start} AND {end}"


def _function_sql(wanted: Wanted, where: str) -> str:
    """Return a scalar subquery over the events of a window."""
    column, function, params = wanted.column, wanted.function, wanted.params
    source = f"FROM events WHERE {where} AND {column} IS NOT NULL"
    number = "" if column not in FLOATS else f" AND NOT isnan({column})"
    finite = "" if column not in FLOATS else f" AND isfinite({column})"
    listed = f"list({column} ORDER BY t, {column})"
    count = int(params.get("n", 1))
    if function == "count":
        return f"(SELECT nullif(count({column}), 0) {source})"
    if function in {"min", "max"}:
        return f"(SELECT {function}({column}) {source}{number})"
    if function in {"last", "first"} and "n" not in params:
        return f"(SELECT {listed}[{-1 if function == 'last' else 1}] {source})"
    if function == "last":
        return f"(SELECT {listed}[-{count}:] {source})"
    if function == "first":
        return f"(SELECT {listed}[:{count}] {source})"
    if function in {"last_distinct", "first_distinct"}:
        best, way = ("max", "DESC") if function == "last_distinct" else ("min", "ASC")
        chosen = (
            f"SELECT {column} AS v, {best}(t) AS at_ns {source} GROUP BY {column} "
            f"ORDER BY at_ns {way}, v {way} LIMIT {count}"
        )
        return f"(SELECT list(v ORDER BY at_ns, v) FROM ({chosen}))"
    if function == "approx_count_distinct":
        return f"(SELECT nullif(count(DISTINCT {column}), 0) {source})"
    if function == "approx_percentile":
        return f"(SELECT quantile_disc({column}, {params['percentile']})::DOUBLE {source}{finite})"
    name = {"mean": "avg"}.get(function, function)
    return f"(SELECT {name}({column}) {source})"
