from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from fastserve.cli.serve import server_options
from fastserve.config import Settings
from fastserve.server.options import ServerOptions
from fastserve.wire.http1 import HttpLimits
from tests.cli.conftest import Run
from tests.support.command import running

READY = r"listening on (http://127\.0\.0\.1:\d+) with 1 worker\n"
SERVE = ("serve", "--repo", "shop", "--port", "0", "--workers", "1", "--store", "local:store")


@pytest.fixture
def materialized(run: Run, shop: str, tmp_path: Path) -> Path:
    where = ("--repo", shop, "--store", "local:store")
    assert run("apply", "--yes", *where).code == 0
    assert run("materialize", "--all", "--until", "2026-01-02T12:00:00Z", *where).code == 0
    return tmp_path


def test_what_was_materialized_is_served_and_got(materialized: Path, run: Run) -> None:
    with running(materialized, *SERVE, "--clock", "2026-01-02T12:00:00Z") as server:
        url = server.wait_for(READY)[1]
        ran = run("get", "fraud:v2", "user_id=u1", "payee_id=u2", "merchant_id=7", "--url", url)
        assert ran.code == 0
        rows = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines()[1:]}
        assert rows["pair.amount_max_7d_1h"][:3] == ["12.5", "float64", "PRESENT"]
        assert rows["payee_spending.amount_sum_1d_1h"][0] == "100.0"
        assert rows["profile.age"] == ["30", "int64", "PRESENT", "2026-01-01T00:00:00Z"]
        assert rows["profile.city"][:3] == ["Oslo", "string", "PRESENT"]
        assert rows["shop.rating"][:3] == ["4.5", "float64", "PRESENT"]
        assert rows["spending.amount_count_1d_1h"][0] == "1"
        assert rows["spending.amount_sum_28d_1h"][0] == "15.0"
        wrong = run("get", "fraud:v2", "user_id=u1", "payee_id=u2", "merchant_id=x", "--url", url)
        assert wrong.code == 1
        assert "the server answered 400: Join key `merchant_id`: expected int64" in wrong.err
        unknown = run("get", "fraud", "--url", url)
        assert "the server answered 404: Unknown feature service 'fraud'" in unknown.err
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback" not in server.err


def test_tables_that_the_store_lacks_are_warned_of_and_it_starts(run: Run, shop: str, tmp_path: Path) -> None:
    assert Path(shop) == tmp_path / "shop"
    with running(tmp_path, *SERVE) as server:
        url = server.wait_for(READY)[1]
        assert "fastserve: warning: local:store lacks the tables " in server.err
        assert ": their services answer 503; run `fastserve apply`\n" in server.err
        ran = run("get", "fraud:v2", "user_id=u1", "payee_id=u2", "merchant_id=7", "--url", url)
        assert "the server answered 503" in ran.err
        assert server.end(signal.SIGTERM) == 0


def test_an_interrupt_ends_it_in_good_order(materialized: Path) -> None:
    with running(materialized, *SERVE) as server:
        server.wait_for(READY)
        assert server.end(signal.SIGINT) == 0
        assert "warning" not in server.err
        assert "Traceback" not in server.err


def test_a_port_in_use_says_so_and_how_to_choose_another(run: Run, shop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("serve", "--repo", shop, "--port", str(port), "--store", "local:store")
    assert ran.code == 1
    assert ran.err == (
        f"fastserve: error: can't listen on http://127.0.0.1:{port}: the port is in use by another process; "
        "stop that one or choose another port "
        "(choose it by --port N or FASTSERVE_PORT, --host ADDRESS or FASTSERVE_HOST)\n"
    )


def test_all_that_is_wrong_in_the_repo_is_shown_before_anything_starts(run: Run, shop: str) -> None:
    file = Path(shop) / "definitions.py"
    file.write_text(file.read_text(encoding="utf-8").replace("fs.String", "str"), encoding="utf-8")
    ran = run("serve", "--repo", shop, "--port", "0")
    assert ran.code == 2
    assert "errors in the feature repo:" in ran.err
    assert "did you mean String?" in ran.err


def test_without_credentials_it_says_what_to_set(shop: str, tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "FASTSERVE_STORE": "dynamodb://eu-north-1",
    }
    with running(tmp_path, "serve", "--repo", shop, "--port", "0", environ=environ) as server:
        assert server.process.wait(30) == 2
        assert server.err.startswith(
            "fastserve: error: AWS credentials: expected some for DynamoDB, found none; set "
        )
        assert "AWS_ACCESS_KEY_ID" in server.err


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--store", "dynamodb:"], "store URL: expected a region, as in dynamodb://eu-central-1"),
        (
            ["--store", "mysql://x"],
            "store URL: expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got the scheme 'mysql'",
        ),
        (["--port", "eighty"], "port (flag --port): expected a whole number from 0 to 65535, got 'eighty'"),
        (["--clock", "noon"], "clock (flag --clock): expected a time as in RFC 3339"),
    ],
)
def test_a_setting_that_can_t_be_used_is_refused(run: Run, shop: str, flags: list[str], text: str) -> None:
    ran = run("serve", "--repo", shop, *flags)
    assert ran.code == 2
    assert ran.err.startswith(f"fastserve: error: {text}")


def test_a_store_that_can_t_be_opened_is_the_store_s_fault(run: Run, shop: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = run("serve", "--repo", shop, "--port", "0", "--store", "local:file/store")
    assert ran.code == 1
    assert ran.err.startswith("fastserve: error: ")
    assert "Traceback" not in ran.err


def test_a_variable_that_may_be_misspelt_is_warned_of(run: Run, shop: str) -> None:
    environ = {"FASTSERVE_PROT": "1", "FASTSERVE_API_KEY": "k", "FASTSERVE_URL": "u", "FASTSERVE_PORT": "x"}
    ran = run("serve", "--repo", shop, **environ)
    assert ran.code == 2  # for the port
    del environ["FASTSERVE_PORT"]
    ran = run("serve", "--repo", shop, "--store", "local:", **environ)
    assert ran.err.startswith(
        "fastserve: warning: the variable FASTSERVE_PROT is no setting's\nfastserve: error: store"
    )


def test_settings_reach_the_server_in_its_units() -> None:
    options = server_options(
        Settings(
            host="::1",
            port=1,
            workers=3,
            body_limit_bytes=2048,
            idle_timeout_ms=1500,
            header_timeout_ms=250,
            shutdown_timeout_ms=100,
        )
    )
    assert (options.host, options.port, options.workers) == ("::1", 1, 3)
    assert options.limits.body_bytes == 2048
    assert (options.idle_timeout_s, options.header_timeout_s, options.shutdown_timeout_s) == (1.5, 0.25, 0.1)
    assert server_options(Settings()).workers == len(os.sched_getaffinity(0))


def test_limits_and_times_of_connections_are_settings() -> None:
    flags = {"header_limit_bytes": "4096", "body_rate_bytes_per_s": "2048", "write_timeout_ms": "1500"}
    options = server_options(Settings.load(flags, {}))
    assert options.limits.header_bytes == 4096
    assert (options.body_rate_bytes_per_s, options.write_timeout_s) == (2048, 1.5)
    default = server_options(Settings())
    assert default.limits.header_bytes == HttpLimits().header_bytes
    assert default.write_timeout_s == ServerOptions().write_timeout_s
    assert default.body_rate_bytes_per_s == ServerOptions().body_rate_bytes_per_s
