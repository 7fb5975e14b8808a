"""Tests of `fastserve.server.key_file`: keys that change while the server runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fastserve.api.api_keys import NO_KEY, READ, format_keys, new_key
from fastserve.errors import DefinitionError, RequestError
from fastserve.server.key_file import KeyFile
from tests.server.application_world import V1, V2, ApplicationWorld, is_refused

OLD, NEW = "fs_old", "fs_new"


def write(path: Path, *secrets: str) -> None:
    path.write_bytes(format_keys([new_key(secret, "web", ["prod"], [READ], 0, None) for secret in secrets]))


def is_admitted(keys: KeyFile, secret: str) -> bool:
    try:
        keys.admit(f"Bearer {secret}".encode(), READ, "prod")
    except RequestError:
        return False
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write(path, OLD)
    return path


def watched(path: Path) -> KeyFile:
    return KeyFile(str(path), lambda: 1)


def test_a_key_that_is_added_or_revoked_counts_at_the_next_look(path: Path) -> None:
    keys = watched(path)
    assert is_admitted(keys, OLD)
    write(path, OLD, NEW)
    keys.watch()
    assert is_admitted(keys, OLD)
    assert is_admitted(keys, NEW)
    write(path, NEW)
    keys.watch()
    assert not is_admitted(keys, OLD)


def test_a_file_that_is_broken_or_gone_leaves_the_keys_as_they_were(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = watched(path)
    path.write_text("{")
    with caplog.at_level(logging.ERROR, "fastserve"):
        keys.watch()
        keys.watch()
    assert len(caplog.records) == 1  # once per version
    path.unlink()
    keys.watch()
    assert is_admitted(keys, OLD)
    write(path, NEW)
    keys.watch()
    assert is_admitted(keys, NEW)
    assert not is_admitted(keys, OLD)


def test_a_server_does_not_start_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="api_keys: expected a file of keys, got No such file"):
        watched(tmp_path / "none.json")


@pytest.mark.parametrize(
    "path_asked", [V1 + "get-features", V1 + "get-features-batch", V1 + "metadata", V2, "/nowhere"]
)
def test_whatever_tells_of_features_asks_for_a_key(path: Path, path_asked: str) -> None:
    world = ApplicationWorld(keys=watched(path))
    is_refused(world.ask("POST", path_asked, b"{}"), 401, 16, NO_KEY)
    (answer,) = world.send("POST", path_asked, b"{}", b"Bearer " + OLD.encode()).answers
    assert answer.status in {400, 403, 404}


def test_a_key_for_another_workspace_is_403(path: Path) -> None:
    world = ApplicationWorld(keys=watched(path))
    (answer,) = world.send("POST", V1 + "metadata", b"{}", b"Bearer " + OLD.encode()).answers
    is_refused(answer, 403, 7, "Expected an API key for workspace 'w', got another's")


def test_health_is_told_to_everyone(path: Path) -> None:
    world = ApplicationWorld(keys=watched(path))
    assert [world.ask("GET", asked).status for asked in ("/healthz", "/readyz")] == [200, 200]


def test_pushing_asks_for_the_scope_of_its_own(path: Path) -> None:
    world = ApplicationWorld(keys=watched(path))
    (answer,) = world.send("POST", "/ingest", b"{}", b"Bearer " + OLD.encode()).answers
    is_refused(answer, 403, 7, "Expected an API key with the scope `ingest`, got one for read")
