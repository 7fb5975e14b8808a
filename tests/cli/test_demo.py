from __future__ import annotations

import argparse
import json
import shlex
import signal
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastserve.cli.demo import QUESTIONS, console_lines, curl_command, demo_settings, example_repo
from fastserve.cli.get import server_url
from tests.cli.conftest import Run
from tests.support.command import running

READY = r"Serving on (http://127\.0\.0\.1:\d+) until Ctrl-C\.\n"


def flags(**given: object) -> argparse.Namespace:
    return argparse.Namespace(
        **{"host": None, "port": None, "workers": None, "store": None, "log_level": None} | given
    )


def test_it_has_a_store_a_clock_and_a_repo_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fastserve.toml").write_text(
        '[server]\nstore = "local:precious"\nport = 1\n', encoding="utf-8"
    )
    environ = {
        "FASTSERVE_REPO": "mine",
        "FASTSERVE_CLOCK": "2020-01-01T00:00:00Z",
        "FASTSERVE_WORKSPACE": "w",
    }
    settings = demo_settings(flags(), environ)
    assert (settings.store, settings.host, settings.port) == ("local:.fastserve/demo", "127.0.0.1", 8080)
    assert settings.clock == datetime(2013, 12, 30, 12, tzinfo=UTC)
    assert (Path(settings.repo), settings.workspace) == (example_repo(), None)


def test_address_and_store_may_be_chosen_by_flag_or_variable() -> None:
    assert demo_settings(flags(port="1", store=["local:a"]), {"FASTSERVE_PORT": "2"}).port == 1
    settings = demo_settings(flags(host="0.0.0.0"), {"FASTSERVE_PORT": "2", "FASTSERVE_STORE": "local:b"})
    assert (settings.host, settings.port, settings.store) == ("0.0.0.0", 2, "local:b")


def test_its_help_names_its_own_store(run: Run) -> None:
    text = " ".join(run("demo", "--help").out.split())
    assert "(default: local:.fastserve/demo)" in text
    assert "local:.fastserve/store" not in text


def test_any_free_port_is_chosen_beforehand() -> None:
    assert demo_settings(flags(port="0"), {}).port > 0


@pytest.mark.parametrize(
    "host, url",
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("example", "http://example:80"),
    ],
)
def test_the_url_is_one_that_this_machine_can_ask(host: str, url: str) -> None:
    assert server_url(host, 80) == url


def test_the_curl_command_is_one_line_that_a_shell_takes_apart_rightly() -> None:
    command = curl_command("http://h:1", QUESTIONS[0])
    words = shlex.split(command)
    assert words[:4] == ["curl", "-s", "http://h:1/api/v1/feature-service/get-features", "-d"]
    assert json.loads(words[4])["params"]["featureServiceName"] == "flight_delay"
    assert "\n" not in command


def test_a_port_in_use_is_told_before_anything_is_materialized(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("demo", FASTSERVE_PORT=str(taken.getsockname()[1]))
    assert ran.code == 1
    assert "the port is in use" in ran.err
    assert "FASTSERVE_PORT" in ran.err
    assert not (tmp_path / ".fastserve").exists()


def test_it_materializes_once_serves_shows_a_vector_and_a_curl_that_works(tmp_path: Path) -> None:
    with running(tmp_path, "demo", "--port", "0", "--workers", "1") as demo:
        demo.wait_for(READY, timeout_s=120)
        assert demo.out.startswith(
            "Materializing 8 views of the flights example into local:.fastserve/demo …\n"
        )
        vector = {line.split()[0]: line.split()[1] for line in demo.out.splitlines() if "  PRESENT" in line}
        # count(*), max and avg(dep_delay) of carrier UA from 2013-12-23 12:00 to 2013-12-30 12:00
        assert vector["carrier_delays.flight_count_7d_1h"] == "1042"
        assert vector["carrier_delays.dep_delay_max_7d_1h"] == "306.0"
        assert vector["carrier_delays.dep_delay_mean_7d_1h"] == "17.861671469740635"
        assert len(vector) >= 100
        assert vector["overlap.jaccard"] == "0.3392857142857143"  # 19 of 56 destinations in 28 days
        curl, curl_overlap = [line.strip() for line in demo.out.splitlines() if line.startswith("  curl ")]
        overlap = subprocess.run(["sh", "-c", curl_overlap], capture_output=True, text=True, check=True)
        assert json.loads(overlap.stdout)["result"]["features"] == [0.3392857142857143, "19"]
        pasted = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, check=True)
        answer = json.loads(pasted.stdout)
        names = [feature["name"] for feature in answer["metadata"]["features"]]
        assert answer["result"]["features"][names.index("carrier_delays.flight_count_7d_1h")] == "1042"
        assert demo.end(signal.SIGINT) == 0
        assert "Traceback" not in demo.err
    with running(tmp_path, "demo", "--port", "0", "--workers", "1") as again:
        again.wait_for(READY)
        assert "Materializing" not in again.out
        assert again.end(signal.SIGTERM) == 0


def test_an_interrupt_while_it_materializes_ends_all_of_it(tmp_path: Path) -> None:
    with running(tmp_path, "demo", "--port", "0") as demo:
        demo.wait_for("Materializing")
        assert demo.end(signal.SIGINT) == 130
        assert "Traceback" not in demo.err
    with running(tmp_path, "demo", "--port", "0") as demo:
        demo.wait_for("Materializing")
        assert demo.end(signal.SIGTERM) == 143
        assert "Traceback" not in demo.err


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, []),
        ({"admin_port": "8081"}, ["Console on http://127.0.0.1:8081/"]),
        ({"admin_port": "8081", "admin_host": "::1"}, ["Console on http://[::1]:8081/"]),
        ({"admin_port": "0"}, []),  # the server prints which one it has
    ],
)
def test_it_says_where_its_console_is(given: dict[str, str], expected: list[str]) -> None:
    assert console_lines(demo_settings(flags(**given), {})) == expected
