from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path

import pytest

from fastserve.cli.due import gap_text, refreshed_text, status_text
from fastserve.ingest.lease import RefreshState
from fastserve.ingest.refresh import Refreshed, Status
from fastserve.ingest.registry import Materialized
from fastserve.ingest.schedule import Due, Gap
from tests.cli.conftest import Run
from tests.support import command
from tests.support.shop_repo import DEFINITIONS, write_shop_repo

HOUR_NS = 3_600 * 10**9
UNTIL_NS = 1_767_225_600 * 10**9
SCHEDULED = DEFINITIONS.replace(
    "    aggregation_interval=timedelta(hours=1),",
    "    aggregation_interval=timedelta(hours=1), batch_schedule=timedelta(hours=1),",
)
WHERE = ("--repo", "shop", "--store", "local:store")


@pytest.fixture
def scheduled(run: Run, tmp_path: Path) -> Path:
    """Apply a repo with two scheduled views, spending and pair."""
    folder = write_shop_repo(tmp_path / "shop", SCHEDULED)
    assert run("apply", *WHERE, "--yes").code == 0
    return folder


def column(text: str, number: int) -> dict[str, str]:
    lines = [line.split("  ") for line in text.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {line[0]: line[number] for line in cells[1:] if len(line) > number}


def test_due_views_are_done_once_and_their_standing_is_shown(run: Run, scheduled: Path) -> None:
    assert column(run("materialize", "--status", *WHERE).out, 2) == {"spending": "due", "pair": "due"}

    ran = run("materialize", "--due", *WHERE)

    assert (ran.code, ran.err) == (0, "")
    assert column(ran.out, 1) == {"spending": "done", "pair": "done"}
    ran = run("materialize", "--due", "pair", *WHERE)
    assert (ran.code, column(ran.out, 1)) == (0, {"pair": "up to date"})
    ran = run("materialize", "--status", *WHERE)
    assert (ran.code, column(ran.out, 2)) == (0, {"spending": "up to date", "pair": "up to date"})


def test_a_failure_is_an_exit_code_and_stands_in_the_status(run: Run, scheduled: Path) -> None:
    payments = (scheduled / "payments.csv").read_bytes()
    (scheduled / "payments.csv").unlink()

    ran = run("materialize", "--due", "pair", *WHERE)

    assert ran.code == 1
    assert column(ran.out, 1) == {"pair": "failed"}
    assert "pair: failed (after 1 attempt): " in ran.out
    ran = run("materialize", "--status", "pair", *WHERE)
    assert (ran.code, column(ran.out, 2)) == (1, {"pair": "failing"})
    assert "pair: last error, " in ran.out
    (scheduled / "payments.csv").write_bytes(payments)
    assert run("materialize", "--due", *WHERE).code == 0
    assert run("materialize", "--status", *WHERE).code == 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--due", "--all"], "materialize: expected --due without --all, got both"),
        (["--due", "--until", "2026-01-01"], "materialize: expected --due without --until, got both"),
        (["--status", "--input", "a.csv"], "materialize: expected --status without --input, got both"),
        (["--delay", "5m", "pair"], "materialize: expected --delay with --due or --status, got it alone"),
        (["--due", "profile"], "FeatureView 'profile': expected a batch_schedule, got none"),
    ],
)
def test_flags_of_two_ways_are_refused(run: Run, scheduled: Path, flags: list[str], message: str) -> None:
    ran = run("materialize", *flags, *WHERE)

    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize("delay", ["5", "h", "5 m", "-5m", "1w", ""])
def test_a_delay_that_is_none_is_refused(run: Run, scheduled: Path, delay: str) -> None:
    ran = run("materialize", "--due", f"--delay={delay}", *WHERE)

    assert ran.code == 2
    assert "expected a duration such as 90s, 15m, 2h or 1d, got " in ran.err


def test_without_a_schedule_there_is_nothing_to_do(run: Run, shop: str) -> None:
    where = ["--repo", shop, "--store", "local:store"]
    assert run("apply", *where, "--yes").code == 0
    for flag in ("--due", "--status"):
        ran = run("materialize", flag, *where)
        assert (ran.code, ran.out) == (0, "No view has a batch_schedule.\n")


def test_processes_at_once_do_each_view_once(run: Run, scheduled: Path, tmp_path: Path) -> None:
    argv = ("materialize", "--due", *WHERE)
    with command.running(tmp_path, *argv) as one, command.running(tmp_path, *argv) as two:
        codes = [each.process.wait(60) for each in (one, two)]
        outs = [one.out, two.out]

    assert codes == [0, 0], outs
    outcomes = [outcome for out in outs for outcome in column(out, 1).values() if outcome == "done"]
    assert len(outcomes) == 2, outs


def test_a_killed_process_leaves_its_lease_and_others_say_so(
    run: Run, scheduled: Path, tmp_path: Path
) -> None:
    definitions = (scheduled / "definitions.py").read_text()
    stalling = definitions + (
        "\ndef stall(table):\n"
        "    import pathlib, time\n"
        f"    pathlib.Path({str(tmp_path / 'reached')!r}).touch()\n"
        "    time.sleep(60)\n"
        "    return table\n"
        "slow = fs.FeatureView(name='slow', entities=user, source=payments, transformation=stall,\n"
        "    aggregation_interval=timedelta(hours=1), batch_schedule=timedelta(hours=1),\n"
        "    features=[fs.Aggregate(fs.Field('amount', fs.Float64), 'sum', timedelta(days=1))])\n"
    )
    (scheduled / "definitions.py").write_text(stalling)
    assert run("apply", *WHERE, "--yes").code == 0
    with command.running(tmp_path, "materialize", "--due", "slow", *WHERE) as killed:
        while not (tmp_path / "reached").exists():
            assert killed.process.poll() is None, killed.err
        killed.end(signal.SIGKILL)

    ran = run("materialize", "--due", "slow", "pair", *WHERE)

    assert ran.code == 0
    assert column(ran.out, 1) == {"slow": "running elsewhere", "pair": "done"}
    assert f":{killed.process.pid}:" in ran.out
    assert column(run("materialize", "--status", "slow", *WHERE).out, 2) == {"slow": "running"}


def test_what_there_is_to_say_of_views_stands_under_the_table() -> None:
    gap = Gap(UNTIL_NS - 3 * HOUR_NS, UNTIL_NS - HOUR_NS, 3)
    held = RefreshState(owner="host:7:ab", lease_until_ns=UNTIL_NS, attempts=1)
    results = [
        Refreshed("late", "done", Due(UNTIL_NS, "schedule", gap)),
        Refreshed("grown", "done", Due(UNTIL_NS, "changed definition")),
        Refreshed("busy", "running elsewhere", Due(UNTIL_NS, "schedule"), state=held),
        Refreshed(
            "sad", "failed", Due(UNTIL_NS, "schedule"), error="no file", state=RefreshState(attempts=4)
        ),
        Refreshed("away", "failed", error="no store"),
    ]

    lines = refreshed_text(results).splitlines()

    span = "2025-12-31T21:00:00Z to 2025-12-31T23:00:00Z"
    assert lines[1].split() == ["late", "done", "2026-01-01T00:00:00Z", "3", "-", "-", "-"]
    assert lines[6:] == [
        f"late: 3 due times were missed, {span}; what they would have written is in what is now",
        "grown: made again, for its definition has changed",
        "busy: host:7:ab has it until 2026-01-01T00:00:00Z",
        "sad: failed (after 4 attempts): no file",
        "away: failed: no store",
    ]
    assert gap_text(Gap(UNTIL_NS, UNTIL_NS, 1)).startswith("1 due time was missed, 2026-01-01T00:00:00Z; ")


def test_the_status_tells_errors_holders_and_gaps() -> None:
    done = Materialized("a", UNTIL_NS, UNTIL_NS - HOUR_NS, 1, 0, 0, 0, 0)
    gap = Gap(UNTIL_NS, UNTIL_NS, 1)
    found = [
        Status("a", "up to date", UNTIL_NS, done, None, RefreshState(gaps=(gap,))),
        Status(
            "b",
            "running",
            UNTIL_NS,
            None,
            Due(UNTIL_NS, "never done"),
            RefreshState(
                owner="me", lease_until_ns=UNTIL_NS, attempts=2, last_error="no file", last_error_ns=0
            ),
        ),
    ]

    lines = status_text(found, {"a": timedelta(hours=6), "b": None}).splitlines()

    assert lines[1].split("  ")[0] == "a"
    assert lines[1].split()[1:] == [
        "6h",
        "up",
        "to",
        "date",
        "2026-01-01T00:00:00Z",
        "2025-12-31T23:00:00Z",
        "-",
        "0",
    ]
    assert lines[2].split() == ["b", "-", "running", "-", "-", "2026-01-01T00:00:00Z", "2"]
    assert lines[3:] == [
        f"a: {gap_text(gap)}",
        "b: me has it until 2026-01-01T00:00:00Z",
        "b: last error, 1970-01-01T00:00:00Z: no file",
    ]
