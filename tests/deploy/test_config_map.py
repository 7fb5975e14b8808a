"""A feature repo from a ConfigMap: the kubelet swaps a link, SIGHUP takes the new definitions over."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson

from tests.support.feature_server import METADATA, apply_and_put, serving_features
from tests.support.server_process import Server, eventually

DEFINITIONS = """
from fastserve import *
user = Entity("user", Field("user_id", String))
people = FileSource("people", path="people.csv")
view = FeatureView("people", user, people, [Attribute("age", Int64)])
service = FeatureService("{name}", [view])
"""


def project(mount: Path, generation: str, name: str) -> None:
    """Write a generation of files and point to it as the kubelet does: files are links through ``..data``."""
    folder = mount / generation
    folder.mkdir(parents=True)
    (folder / "definitions.py").write_text(DEFINITIONS.format(name=name))
    (folder / "fastserve.toml").write_text('workspace = "w"\n')
    swapped = mount / "..data_tmp"
    swapped.symlink_to(generation)
    swapped.rename(mount / "..data")
    for file in folder.iterdir():
        link = mount / file.name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / file.name)


def status(server: Server, service: str) -> int:
    connection = server.connect()
    params = {"workspaceName": "w", "featureServiceName": service}
    answer = connection.ask(METADATA, orjson.dumps({"params": params}))
    connection.close()
    return answer.status


def test_a_changed_config_map_is_taken_over_by_sighup(tmp_path: Path) -> None:
    mount, store = tmp_path / "repo", f"local:{tmp_path}/store"
    project(mount, "..2026_01_01", "before")
    apply_and_put(mount, store, {})
    with serving_features(mount, store, "--workers", "1") as server:
        assert (status(server, "before"), status(server, "after")) == (200, 404)
        project(mount, "..2026_01_02", "after")
        assert status(server, "after") == 404  # nothing watches the folder
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded: 1 worker of generation 1")
        eventually(lambda: (status(server, "before"), status(server, "after")) == (404, 200))
        assert server.stop() == 0
