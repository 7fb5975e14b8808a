"""Rows as files for DynamoDB's import from S3, held against what puts of the same rows write."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shlex
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from botocore.session import Session
from botocore.validate import ParamValidator

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest import export as exporting
from fastserve.ingest.apply import execute, plan_apply, table_spec
from fastserve.ingest.badrows import BadRowsError
from fastserve.ingest.export import Exported, export, item_bytes
from fastserve.ingest.imported import Imported, record_import
from fastserve.ingest.registry import Registry
from fastserve.plan.reads import ReadGroup
from fastserve.plan.views import plan_view
from fastserve.sdk.repo import Repo
from fastserve.store.dynamodb.admin import creation_parameters
from fastserve.store.dynamodb.writer import packed_item
from fastserve.store.interface import OnlineStore
from tests.ingest.support import UNTIL_NS, Workbench
from tests.ingest.test_materialize import AGGREGATES, BAD, PROFILE, PROFILES, events_csv, random_events
from tests.store.test_contract import fetched, key_read, rows_in
from tests.support.dynamodb_servers import aws_environment, dynoxide_of_import

__all__ = ["aws_environment"]

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIX = "prod."
USERS = [f"u{n}" for n in range(30)]
ITEMS = PROFILE.replace("])", "], row_format=AttributesFormat(timestamp_attribute='updated'))")


def run(repo: Repo, folder: Path, **options: Any) -> list[Exported]:
    options = {"until_ns": UNTIL_NS, "prefixes": PREFIX, "progress": False, **options}
    return asyncio.run(export(repo, list(repo.views), folder, **options))


def lines(exported: Exported) -> Iterator[dict[str, Any]]:
    for file in exported.files:
        text = gzip.decompress((exported.folder / file.path).read_bytes())
        assert len(text) == file.text_bytes
        items = [orjson.loads(line)["Item"] for line in text.splitlines()]
        assert len(items) == file.items
        yield from items


@pytest.fixture
def spend(bench: Workbench) -> Repo:
    bench.write("events.csv", events_csv(random_events(600, len(USERS))))
    return bench.define(AGGREGATES)


# --- what an import makes of it -----------------------------------------------------------------------------


def imported_url(endpoint: str) -> str:
    return f"dynamodb://us-east-1?endpoint={endpoint}&prefix={PREFIX}"


async def served(store: OnlineStore, table: str, keys: list[str]) -> list[bytes | None]:
    """Read rows as the hot path does."""
    reads = [key_read(ReadGroup(0, (table,)), key) for key in keys]
    await fetched(store, reads)
    return [row for read in reads for row in rows_in(read)]


def test_imported_rows_are_those_that_puts_write(
    bench: Workbench, spend: Repo, aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastserve.ingest.export_files.FILE_BYTES", 20_000)
    bench.run(spend)
    expected = bench.rows(bench.plan(spend, "spend"), [(user,) for user in USERS])
    assert None not in expected
    (exported,) = run(spend, bench.folder / "out")
    assert len(exported.files) > 3
    spec = table_spec(plan_view(spend.views["spend"], "default", PREFIX))
    with dynoxide_of_import(bench.folder / "out", [creation_parameters(spec)], bench.folder) as endpoint:
        bench.url = imported_url(endpoint)
        table = "prod.default.spend"
        assert bench.with_store(lambda store: store.get_rows(table, USERS)) == expected
        assert bench.with_store(lambda store: served(store, table, USERS)) == expected


def test_imported_items_of_the_attributes_format_are_those_that_puts_write(
    bench: Workbench, aws_environment: None
) -> None:
    bench.write("profiles.csv", PROFILES.replace("NaN", "0.25"))
    repo = bench.define(ITEMS)
    bench.run(repo)
    keys = [{"user_id": "u1"}, {"user_id": "u2"}]
    expected = bench.with_store(lambda store: store.get_items("default.profile", keys))
    assert None not in expected
    (exported,) = run(repo, bench.folder / "out")
    spec = table_spec(plan_view(repo.views["profile"], "default", PREFIX))
    with dynoxide_of_import(bench.folder / "out", [creation_parameters(spec)], bench.folder) as endpoint:
        bench.url = imported_url(endpoint)
        assert bench.with_store(lambda store: store.get_items("prod.default.profile", keys)) == expected
    assert exported.write_units == 2


# --- the files ----------------------------------------------------------------------------------------------


def test_every_key_is_on_one_line_and_files_are_bounded(
    bench: Workbench, spend: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastserve.ingest.export_files.FILE_BYTES", 20_000)
    (exported,) = run(spend, bench.folder / "out")
    keys = [item["k"]["S"] for item in lines(exported)]
    assert sorted(keys) == sorted(USERS)
    assert all(file.text_bytes <= 20_000 for file in exported.files)
    assert [file.path for file in exported.files] == [
        f"data/{n:05}.json.gz" for n in range(len(exported.files))
    ]
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    assert (manifest["view"], manifest["table"], manifest["items"]) == (
        "spend",
        "prod.default.spend",
        len(USERS),
    )
    assert (
        manifest["text_bytes"] == exported.text_bytes == sum(file["text_bytes"] for file in manifest["files"])
    )
    assert manifest["commands"] == list(exported.commands)


def test_a_line_longer_than_a_file_is_a_file(
    bench: Workbench, spend: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastserve.ingest.export_files.FILE_BYTES", 10)
    (exported,) = run(spend, bench.folder / "out")
    assert [file.items for file in exported.files] == [1] * len(USERS)
    assert len(list(lines(exported))) == len(USERS)


def test_rows_of_pushed_attributes_have_their_time_beside_them(bench: Workbench) -> None:
    bench.write("profiles.csv", PROFILES)
    repo = bench.define(
        """
        profiles = FileSource("profiles", "profiles.csv", timestamp_field="at")
        fields = [Field("user_id", String), Field("at", Timestamp), Field("age", Int64)]
        pushed = PushSource("pushed", fields, batch_source=profiles, timestamp_field="at")
        view = FeatureView("profile", user, pushed, [Attribute("age", Int64)])
        """
    )
    (exported,) = run(repo, bench.folder / "out")
    first, _ = sorted(lines(exported), key=lambda item: str(item["k"]["S"]))
    assert first["e"] == {"N": str(UNTIL_NS - 1)}


def test_an_export_is_not_written_over_and_an_unfinished_one_begun_anew(
    bench: Workbench, spend: Repo
) -> None:
    (first,) = run(spend, bench.folder / "out")
    expected = list(lines(first))
    with pytest.raises(DefinitionError, match="--export: expected a folder without an export, got one in "):
        run(spend, bench.folder / "out")
    (first.folder / "manifest.json").unlink()
    (first.folder / "data" / "00007.json.gz").write_bytes(b"left behind")
    (first.folder / "data" / "notes.txt").write_text("somebody's")
    (second,) = run(spend, bench.folder / "out")
    assert list(lines(second)) == expected
    assert {path.name for path in (second.folder / "data").iterdir()} == {"00000.json.gz", "notes.txt"}


def test_nothing_is_written_when_too_many_rows_are_bad(bench: Workbench) -> None:
    bench.write("events.csv", BAD)
    with pytest.raises(BadRowsError):
        run(bench.define(AGGREGATES), bench.folder / "out", max_bad_rows=0)
    assert not (bench.folder / "out").exists()


def test_a_view_without_rows_has_nothing_to_import(bench: Workbench) -> None:
    bench.write("events.csv", events_csv([]))
    (exported,) = run(bench.define(AGGREGATES), bench.folder / "out")
    assert (exported.files, exported.commands, exported.import_usd) == ((), (), 0)


def test_an_item_that_no_table_holds_is_refused(bench: Workbench) -> None:
    bench.write("profiles.csv", "user_id,name\nu1," + "x" * 410_000 + "\n")
    repo = bench.define(
        """
        source = FileSource("profiles", "profiles.csv")
        features = [Attribute("name", String)]
        view = FeatureView("profile", user, source, features, row_format=AttributesFormat())
        """
    )
    with pytest.raises(StoreError, match=r"item: expected at most 409600 bytes, got 410013"):
        run(repo, bench.folder / "out")


# --- what it costs and how it is imported -------------------------------------------------------------------


def test_the_import_command_is_one_that_the_service_knows(bench: Workbench, spend: Repo) -> None:
    (exported,) = run(spend, bench.folder / "out", regions={"": "eu-central-1"})
    upload, command = exported.commands
    folder, target = shlex.split(upload)[-2:]
    assert (folder, target) == (str(exported.folder / "data"), "s3://BUCKET/prod.default.spend/")
    words = shlex.split(command)
    assert words[:3] == ["aws", "dynamodb", "import-table"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert flags.pop("--region") == "eu-central-1"
    bucket = dict(part.split("=") for part in flags.pop("--s3-bucket-source").split(","))
    assert bucket == {"S3Bucket": "BUCKET", "S3KeyPrefix": "prod.default.spend/"}
    parameters: dict[str, Any] = {"S3BucketSource": bucket}
    for flag, text in flags.items():
        name = "".join(part.title() for part in flag.removeprefix("--").split("-"))
        parameters[name] = json.loads(text) if text.startswith("{") else text
    shape = Session().get_service_model("dynamodb").operation_model("ImportTable").input_shape
    assert shape is not None
    assert not ParamValidator().validate(parameters, shape).has_errors()


def test_prices_are_of_the_text_and_of_the_write_units(bench: Workbench, spend: Repo) -> None:
    (exported,) = run(spend, bench.folder / "out")
    assert exported.import_usd == pytest.approx(exported.text_bytes / 2**30 * 0.15)
    assert exported.puts_usd == pytest.approx(exported.write_units * 0.625 / 1e6)
    row_bytes = exported.report.bytes // exported.report.keys
    assert exported.write_units == len(USERS) * -(-(row_bytes + 5) // 1024)


def test_the_size_of_an_item_is_as_the_service_counts_it() -> None:
    item = {
        "k": {"S": "é"},
        "n": {"N": "12345"},
        "b": {"B": "AAAA"},
        "t": {"BOOL": True},
        "z": {"NULL": True},
    }
    assert item_bytes(item) == (1 + 2) + (1 + 4) + (1 + 3) + (1 + 1) + (1 + 1)
    nested = {"m": {"M": {"ab": {"S": "c"}}}, "l": {"L": [{"S": "d"}, {"NULL": True}]}}
    assert item_bytes(nested) == (1 + 3 + 1 + 2 + 1) + (1 + 3 + 1 + 1 + 1 + 1)


def test_the_table_of_prices_is_of_these_prices() -> None:
    page = (ROOT / "docs" / "batch-at-scale.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) bytes \| \$([\d.]+) \| \$([\d.]+) \|", page, re.MULTILINE)
    assert len(rows) == 4
    for length, puts, imported in rows:
        row, key = bytes(int(length.replace(",", ""))), "k" * 24
        text = len(b'{"Item":%b}\n' % packed_item("table", key, row))
        units = -(-(len(row) + len(key) + 2) // 1024)
        assert puts == f"{units * exporting.PRICE_PER_MILLION_WRITE_UNITS_USD + 1e-9:.2f}"
        assert imported == f"{text * 1e6 / exporting.GB * exporting.PRICE_PER_GB_IMPORTED_USD:.2f}"


# --- once it is imported ------------------------------------------------------------------------------------


class Imports:
    """An export, and a store into which its items are put as an import would."""

    def __init__(self, bench: Workbench, repo: Repo) -> None:
        self.bench = bench
        self.repo = repo
        (self.exported,) = run(repo, bench.folder / "out", prefixes="")

    def put(self) -> None:
        async def work(store: OnlineStore) -> None:
            await execute(await plan_apply(self.repo, store), store)
            rows = [(item["k"]["S"], b64decode(item["v"]["B"])) for item in lines(self.exported)]
            await store.put_rows(self.exported.table, rows)

        self.bench.with_store(work)

    def record(self, repo: Repo | None = None, **options: Any) -> list[Imported]:
        folder = self.exported.folder.parent
        return self.bench.with_store(lambda store: record_import(repo or self.repo, folder, store, **options))


@pytest.fixture
def imports(bench: Workbench, spend: Repo) -> Imports:
    return Imports(bench, spend)


def test_an_import_is_recorded_as_materialize_would(bench: Workbench, imports: Imports) -> None:
    imports.put()
    (imported,) = imports.record()
    assert (imported.view, imported.items) == ("spend", len(USERS))
    got = bench.with_store(lambda store: Registry(store, "default").materialized(["spend"]))
    bench.run(imports.repo)
    assert got == bench.with_store(lambda store: Registry(store, "default").materialized(["spend"]))


def test_an_import_that_is_not_done_is_not_recorded(bench: Workbench, imports: Imports) -> None:
    with pytest.raises(DefinitionError, match=r"table default\.fastserve: .*run `fastserve apply` first"):
        imports.record()
    bench.apply(imports.repo)
    with pytest.raises(
        DefinitionError, match=r"default\.spend: expected the rows of .*: is the import done\?"
    ):
        imports.record()
    assert bench.with_store(lambda store: Registry(store, "default").materialized(["spend"])) == {
        "spend": None
    }


def test_an_export_of_something_else_is_refused(bench: Workbench, imports: Imports, tmp_path: Path) -> None:
    imports.put()
    with pytest.raises(DefinitionError, match="expected an export of workspace other, got one of 'default'"):
        imports.record(workspace="other")
    changed = bench.define(AGGREGATES.replace("days(28)", "days(27)"))
    with pytest.raises(
        DefinitionError, match="expected the view as it is defined now, got one that has changed"
    ):
        imports.record(changed)
    with pytest.raises(
        DefinitionError, match=r"--imported: expected a folder with exports, found no manifest"
    ):
        bench.with_store(lambda store: record_import(imports.repo, tmp_path / "nothing", store))
    (imports.exported.folder / "manifest.json").write_text("{}")
    with pytest.raises(DefinitionError, match=re.escape("expected the manifest of an export in format 1")):
        imports.record()
