"""SIGHUP on real processes: new workers take over from old ones, and nobody's request is lost over it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastserve.sdk.repo import load_repo
from tests.support.feature_server import METADATA, serving_features
from tests.support.server_process import Connection, Server, eventually, serving

RELOADS = 5
CLIENTS = 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "version"
    file.write_text("0")
    return file


@contextmanager
def versioned(file: Path, **settings: object) -> Iterator[Server]:
    with serving(version_file=str(file), **settings) as server:
        yield server


def reload(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)


def version(server: Server) -> str:
    connection = server.connect()
    answer = connection.ask("/version").body.decode()
    connection.close()
    return answer


def test_the_workers_after_a_reload_have_what_was_read_then(file: Path) -> None:
    with versioned(file, workers=2) as server:
        before = server.workers()
        file.write_text("1")
        reload(server)
        server.wait_for("reloaded: 2 workers of generation 1")
        eventually(lambda: len(server.workers()) == 2)
        assert not set(before) & set(server.workers())
        assert {version(server) for _ in range(8)} == {"1"}
        assert server.stop() == 0


@pytest.mark.parametrize(
    "broken, said",
    [
        ("broken", "not reloaded: this version is broken"),
        ("fails", r"not reloaded: worker \d+ \(pid \d+\) could not start"),
        ("hangs", r"not reloaded \(exit code -9\)"),
        ("once", "not reloaded: KeyboardInterrupt; what served before goes on"),
    ],
)
def test_what_can_t_be_read_or_started_leaves_everything_as_it_was(
    file: Path, broken: str, said: str
) -> None:
    with versioned(file, workers=2, boot_timeout_s=2.0) as server:
        before = server.workers()
        file.write_text(broken)
        reload(server)
        server.wait_for(said)
        eventually(lambda: set(server.workers()) == set(before))
        assert version(server) == "0"
        file.write_text("2")
        reload(server)
        server.wait_for("reloaded: 2 workers of")
        eventually(lambda: version(server) == "2")  # the ones before accept until they learn of it
        assert server.stop() == 0


def test_sighups_while_a_reload_is_under_way_come_to_one_more(file: Path) -> None:
    with versioned(file) as server:
        for _ in range(5):
            reload(server)
        server.wait_for("reloaded: 1 worker of generation 1")
        file.write_text("9")
        reload(server)
        eventually(lambda: version(server) == "9")
        assert server.stop() == 0


def test_no_request_is_lost_over_reloads_by_old_connections_or_new_ones(file: Path) -> None:
    """A client that keeps its connection opens another one after an answer that says so."""
    lost: list[str] = []
    answered = [0] * CLIENTS
    done = threading.Event()

    def ask(server: Server, number: int) -> None:
        connection: Connection | None = None
        try:
            while not done.is_set():
                connection = connection or server.connect()
                answer = connection.ask("/echo", b"%d" % answered[number])
                assert answer.body == b"%d" % answered[number]
                answered[number] += 1
                if number % 2 or answer.headers.get("connection") == "close":
                    connection.close()
                    connection = None
        except (OSError, AssertionError) as error:
            lost.append(f"client {number}: {error!r}")

    with versioned(file, workers=2) as server:
        clients = [threading.Thread(target=ask, args=(server, number)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for generation in range(1, RELOADS + 1):
            reload(server)
            server.wait_for(rf"workers of generation {generation} serve")
        done.set()
        for client in clients:
            client.join()
        assert server.stop() == 0
    assert lost == []
    assert min(answered) > RELOADS


def test_without_anything_to_reload_sighup_ends_it(tmp_path: Path) -> None:
    with serving() as server:
        reload(server)
        assert server.wait() == 0


REPO = """
from fastserve import Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Int64, String
user = Entity("user", join_keys=[Field("user_id", String)])
source = FileSource("people", path="people.csv")
view = FeatureView("people", entities=[user], source=source, features=[Attribute("age", Int64)])
service = FeatureService("{name}", features=[view])
"""


def test_serve_takes_over_a_changed_repo_and_says_what_is_wrong_with_a_broken_one(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "people.csv").write_text("user_id,age\nu1,5\n")
    (repo / "fastserve.toml").write_text('workspace = "w"\n')
    definitions = repo / "features.py"
    definitions.write_text(REPO.format(name="before"))
    load_repo(repo)

    def status(server: Server, service: str) -> int:
        connection = server.connect()
        body = b'{"params":{"workspaceName":"w","featureServiceName":"%b"}}' % service.encode()
        answer = connection.ask(METADATA, body)
        connection.close()
        return answer.status

    with serving_features(repo, f"local:{tmp_path}/store", "--workers", "1") as server:
        assert (status(server, "before"), status(server, "after")) == (200, 404)
        definitions.write_text(REPO.format(name="after").replace('"age"', '"the age"'))
        reload(server)
        server.wait_for("(?s)not reloaded: .*features.py.*the age")
        assert status(server, "before") == 200
        definitions.write_text(REPO.format(name="after"))
        reload(server)
        server.wait_for("reloaded: 1 worker")
        eventually(lambda: (status(server, "before"), status(server, "after")) == (404, 200))
        assert server.stop() == 0
