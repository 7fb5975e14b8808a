"""What keeps a server from starting is said before it listens, with what to set, and an exit code."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.bank_repo import ROWS, VECTOR, write_bank_repo
from tests.support.feature_server import AWS, apply_and_put, ask, features, starting_features
from tests.support.server_process import Server

NOBODY: Mapping[str, str] = {name: value for name, value in AWS.items() if "KEY" not in name}
DYNAMODB = "dynamodb://eu-central-1"


def said_at_the_end(server: Server, code: int) -> str:
    assert server.wait() == code
    assert "listening" not in server.said
    assert "Traceback" not in server.said
    return server.said


def test_without_credentials_it_says_what_to_set(tmp_path: Path) -> None:
    with starting_features(write_bank_repo(tmp_path), DYNAMODB, environ=NOBODY) as server:
        assert said_at_the_end(server, 2) == (
            "fastserve: error: AWS credentials: expected some for DynamoDB, found none; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN if there is one), or set "
            "AWS_PROFILE to a profile of ~/.aws, or run under a role (ECS, EKS, EC2)\n"
        )


class Store(NamedTuple):
    """A store's URL that can't be used, and what is said of it."""

    url: str
    said: str


STORES = {
    "no region": Store(
        "dynamodb:",
        "store URL: expected a region, as in dynamodb://eu-central-1 (with an emulator any will do, as in "
        "dynamodb://local?endpoint=http://127.0.0.1:8000), got 'dynamodb:'",
    ),
    "no region but a parameter": Store(
        "dynamodb://?prefix=prod.",
        "store URL: expected a region, as in dynamodb://eu-central-1 (with an emulator any will do, as in "
        "dynamodb://local?endpoint=http://127.0.0.1:8000), got 'dynamodb://'",
    ),
    "a mistyped parameter": Store(
        f"{DYNAMODB}?prefx=prod.",
        "store URL: expected parameters out of endpoint, prefix, connections, consistent_reads, got 'prefx'",
    ),
    "another scheme": Store(
        "postgres://user:secret@host/db",
        "store URL: expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got the scheme 'postgres'",
    ),
    "no folder": Store("local:", "store URL: local: needs a folder; write for example local:./store"),
}


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_cannot_be_meant_is_an_error_that_says_what_can_be(tmp_path: Path, name: str) -> None:
    url, said = STORES[name]
    with starting_features(write_bank_repo(tmp_path), url) as server:
        assert said_at_the_end(server, 2) == f"fastserve: error: {said}\n"


def test_an_unknown_profile_is_an_error_that_names_it(tmp_path: Path) -> None:
    with starting_features(
        write_bank_repo(tmp_path), DYNAMODB, environ={**NOBODY, "AWS_PROFILE": "payments"}
    ) as server:
        said = said_at_the_end(server, 2)
    assert said.startswith(
        "fastserve: error: AWS credentials: The config profile (payments) could not be found; set "
    )


def test_a_definition_that_does_not_compile_is_shown_with_its_place(tmp_path: Path) -> None:
    repo = write_bank_repo(
        tmp_path,
        'import fastserve as fs\n\nuser = fs.Entity("user", fs.Field("user_id", fs.Float64))\n'
        'fs.FeatureService("9lives", features=[])\n',
    )
    (repo / "broken.py").write_text("view = (\n", encoding="utf-8")
    with starting_features(repo, f"local:{tmp_path}/store") as server:
        said = said_at_the_end(server, 2)
    assert said.replace(str(tmp_path), "REPO").splitlines() == [
        "fastserve: error: 4 errors in the feature repo:",
        "  REPO/broken.py:1: SyntaxError: '(' was never closed",
        (
            "  REPO/definitions.py:3: Entity 'user': join key 'user_id' "
            "(expected String, Int64, Bool or Timestamp, got Float64)"
        ),
        (
            "  REPO/definitions.py:4: FeatureService '9lives': name "
            "(expected a letter, then letters, digits and _ . : -, at most 120 characters, got '9lives')"
        ),
        (
            "  REPO/definitions.py:4: FeatureService '9lives': features "
            "(expected at least one FeatureView or OnDemandFeatureView, whole or selected from, got [])"
        ),
    ]


def test_a_repo_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with starting_features(tmp_path / "nowhere", f"local:{tmp_path}/store") as server:
        said = said_at_the_end(server, 2)
    assert said.startswith(f"fastserve: error: feature repo '{str(tmp_path)[:60]}")
    assert said.endswith(" (expected a folder, found none)\n")


def test_a_setting_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    repo = write_bank_repo(tmp_path)
    with starting_features(repo, f"local:{tmp_path}/store", "--clock", "yesterday") as server:
        assert said_at_the_end(server, 2) == (
            "fastserve: error: clock (flag --clock): expected a time as in RFC 3339 from 1700 to 2199, such "
            "as 2013-12-30T12:00:00Z, to the microsecond, got 'yesterday'\n"
        )


def test_a_port_in_use_is_an_error_that_says_how_to_choose_another(tmp_path: Path) -> None:
    repo = write_bank_repo(tmp_path)
    store = f"local:{tmp_path}/store"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with starting_features(repo, store, "--port", str(port)) as server:
            assert said_at_the_end(server, 1) == (
                f"fastserve: error: can't listen on http://127.0.0.1:{port}: the port is in use by another "
                "process; stop that one or choose another port (choose it by --port N or FASTSERVE_PORT, "
                "--host ADDRESS or FASTSERVE_HOST)\n"
            )


def test_a_folder_that_is_no_store_is_an_error_of_the_store(tmp_path: Path) -> None:
    repo = write_bank_repo(tmp_path / "repo")
    (tmp_path / "file").write_text("something else")
    with starting_features(repo, f"local:{tmp_path / 'file'}") as server:
        said = said_at_the_end(server, 1)
    assert said.startswith("fastserve: error: ")
    assert str(tmp_path / "file") in said


def test_a_dynamodb_that_does_not_answer_is_an_error_of_the_store(tmp_path: Path) -> None:
    environ = {**AWS, "AWS_MAX_ATTEMPTS": "1"}
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"dynamodb://local?endpoint=http://127.0.0.1:{unheard.getsockname()[1]}"
        with starting_features(write_bank_repo(tmp_path), url, "--workers", "1", environ=environ) as server:
            said = said_at_the_end(server, 3)
    assert "worker 0 can't start: StoreError: DynamoDB: table bank.fastserve: DescribeTable: " in said
    assert f'Could not connect to the endpoint URL: "{url.partition("=")[2]}/"' in said


def test_a_store_that_was_never_applied_is_served_and_its_tables_are_missed_by_request(
    tmp_path: Path,
) -> None:
    repo = write_bank_repo(tmp_path / "repo")
    with starting_features(repo, f"local:{tmp_path / 'store'}", "--workers", "1") as server:
        server.wait_until_listening()
        asked = {"account_id": 7, "user_id": "u1"}
        answer = ask(server.connect(), "bank", asked)
        assert answer.status == 503
        assert answer.body.count(b"there is no such table") == 2  # as error and as message
        apply_and_put(repo, f"local:{tmp_path / 'store'}", ROWS)
        assert features(ask(server.connect(), "bank", asked)) == VECTOR
        assert server.stop() == 0
