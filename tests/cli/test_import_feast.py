"""`fastserve import-feast`: a Feast repo's configuration and registry in, a feature repo out."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.cli.entry import main
from fastserve.cli.feast_repo import FeastTables
from fastserve.cli.import_feast import read_config, registry_path
from fastserve.config import Settings
from fastserve.errors import DefinitionError
from fastserve.sdk.repo import load_repo
from tests.support.feast_golden import FOLDER

ENDPOINT = "http://127.0.0.1:8000"
VARIABLES = {"RIDES_ENDPOINT": ENDPOINT}
PLAIN = "project: p\nregistry: registry.db\nonline_store: {type: dynamodb, region: eu-west-1}\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Give a copy of Feast's repo as `feast apply` leaves it."""
    folder = tmp_path / "feast"
    folder.mkdir()
    for name in ("repo/feature_store.yaml", "registry.db"):
        (folder / Path(name).name).write_bytes((FOLDER / name).read_bytes())
    return folder


def run(*arguments: str | Path) -> int:
    return main(["import-feast", *map(str, arguments)], VARIABLES)


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "feature_store.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_repo_becomes_one_of_ours_with_its_settings(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ours"

    assert run(repo, "--output", output) == 0

    said = capsys.readouterr()
    assert said.out == (
        f"Wrote 4 views and 2 services of project rides into {output}/.\n"
        f"Serve them: cd {output} && fastserve serve\n"
    )
    assert said.err.splitlines() == [
        "fastserve: warning: left out: view offline_only: it isn't online",
        "fastserve: warning: left out: service with_code: its view 'fares' is an on-demand view",
        (
            "fastserve: warning: left out: on-demand view fares: its code is for Feast; write it as an "
            "on-demand view of fastserve's"
        ),
    ]
    loaded = load_repo(output)
    assert loaded.workspace == "rides"
    assert {view.table for view in loaded.views.values()} == {
        "rides.driver_stats",
        "rides.ride-pairs",
        "rides.every_type",
        "rides.totals",
    }
    settings = Settings.load({}, {}, (output / "fastserve.toml").read_text(), "fastserve.toml")
    assert settings.store == f"dynamodb://us-east-1?endpoint={ENDPOINT}"


def test_files_that_are_there_are_kept_unless_told_otherwise(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ours"
    output.mkdir()
    (output / "features.py").write_text("mine\n")

    assert run(repo, "--output", output) == 2
    assert "expected a folder without features.py, got one with it (--force writes over it)" in (
        capsys.readouterr().err
    )
    assert (output / "features.py").read_text() == "mine\n"
    assert run(repo, "--output", output, "--force") == 0
    assert "FeastFormat" in (output / "features.py").read_text()


def test_a_registry_may_be_named(repo: Path, tmp_path: Path) -> None:
    (repo / "registry.db").rename(tmp_path / "elsewhere.db")

    assert run(repo, "--output", tmp_path / "ours") == 2
    assert run(repo, "--output", tmp_path / "ours", "--registry", tmp_path / "elsewhere.db") == 0


def test_a_registry_without_the_projects_views_says_whose_it_has(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (repo / "feature_store.yaml").read_text().replace("project: rides", "project: other")
    (repo / "feature_store.yaml").write_text(text)

    assert run(repo, "--output", tmp_path / "ours") == 2
    assert "expected feature views of project 'other', got none (projects: rides)" in capsys.readouterr().err


def test_a_file_that_is_no_registry_is_refused(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repo / "registry.db").write_bytes(b"SQLite format 3\0")

    assert run(repo, "--output", tmp_path / "ours") == 2
    assert "expected Feast's, got: " in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_a_configuration_says_where_tables_are_and_how_keys_are_made(tmp_path: Path) -> None:
    text = """\
project: p
registry: {path: data/registry.db, enable_online_feature_view_versioning: true}
entity_key_serialization_version: 2
online_store:
  type: dynamodb
  region: eu-west-1
  consistent_reads: true
  endpoint_url: http://${HOST}:8000
  table_name_template: "{project}-{table_name}"
"""
    found = read_config(config(tmp_path, text), {"HOST": "db"})

    assert found.tables == FeastTables("p", 2, "{project}-{table_name}", versioned=True)
    assert found.store == "dynamodb://eu-west-1?endpoint=http://db:8000&consistent_reads=true"
    assert registry_path(tmp_path, found.registry) == tmp_path / "data/registry.db"
    assert not found.warnings


def test_keys_are_of_feasts_newest_version_where_none_is_named(tmp_path: Path) -> None:
    found = read_config(config(tmp_path, PLAIN), {})

    assert found.tables.key_version == 3
    assert found.warnings == (
        (
            "feature_store.yaml names no entity_key_serialization_version: taken to be 3, as by Feast today; "
            "if rows aren't found, an older Feast wrote them with another"
        ),
    )


@pytest.mark.parametrize(
    "text,message",
    [
        ("a: [", "expected YAML, got what isn't"),
        ("[]", "expected a mapping, got []"),
        ("registry: r", "project: expected a name, got None"),
        (
            "project: p\nonline_store: {type: redis}",
            "online_store: expected one of type dynamodb, got 'redis'",
        ),
        ("project: p\nonline_store: sqlite", "online_store: expected one of type dynamodb, got 'sqlite'"),
        (PLAIN.replace("registry: registry.db", ""), "registry: expected a path, got None"),
        (PLAIN.replace(", region: eu-west-1", ""), "online_store.region: expected a name, got None"),
        (
            PLAIN + "entity_key_serialization_version: 4",
            "entity_key_serialization_version: expected 1, 2 or 3, got 4",
        ),
        (
            PLAIN + "entity_key_serialization_version: [3]",
            "entity_key_serialization_version: expected 1, 2 or 3, got [3]",
        ),
        (
            PLAIN.replace("region:", 'table_name_template: "{project}.{table}", region:'),
            "table_name_template: expected a text like {project}.{table_name}, got '{project}.{table}'",
        ),
        (
            PLAIN.replace("region:", "table_name_template: [1], region:"),
            "table_name_template: expected a text like {project}.{table_name}, got [1]",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read_config(config(tmp_path, text), {})

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "registry", ["s3://bucket/registry.db", "{registry_type: sql, path: 'postgresql://x/y'}"]
)
def test_a_registry_elsewhere_comes_with_the_way_to_make_it_a_file(tmp_path: Path, registry: str) -> None:
    found = read_config(config(tmp_path, PLAIN.replace("registry.db", registry)), {})

    with pytest.raises(DefinitionError, match="SerializeToString"):
        registry_path(tmp_path, found.registry)
