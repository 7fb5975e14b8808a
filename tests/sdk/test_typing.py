"""An author's repo passes `mypy --strict`, and mypy finds the mistakes that types can tell.

mypy runs as it would for an author: without this project's configuration, over the author's files only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastserve import Int64
from fastserve.sdk.repo import load_repo

ROOT = Path(__file__).resolve().parents[2]
TYPED_REPO = Path(__file__).parent / "typed_repo"

# Each line is one mistake, with the code that mypy has for it.
MISTAKES = """
from datetime import timedelta
from fastserve import Aggregate, Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Int64
from fastserve import Calculation, OnDemandFeatureView, RequestSource, on_demand_feature_view
user = Entity("user", Field("user_id", Int64))
files = FileSource("files", "f.csv")
age = Attribute("age", Int64)
total = Aggregate(Field("n", Int64), "sum", timedelta(days=1))
view = FeatureView("view", user, files, [age])
Field("a", "int64")  # arg-type
Field("a", int)  # arg-type
Entity("a", "user_id")  # arg-type
Attribute("a")  # call-overload
Aggregate("n", "sum", timedelta(days=1))  # arg-type
Aggregate(Field("n", Int64), "sum", 7)  # arg-type
FileSource("a", "a.json", format="json")  # arg-type
FeatureView("a", user, files, [age, total])  # arg-type
FeatureView("a", user, files, [age], ttl=60)  # arg-type
FeatureView("a", user, "f.csv", [age])  # arg-type
FeatureView("a", user, files, [age], leading_edge="later")  # arg-type
FeatureView("a", user, files, [age], row_format="json")  # arg-type
FeatureView("a", user, files, [age], intervall=1)  # call-arg
view["age"]  # index
view.with_name(5)  # arg-type
view.with_join_key_map({"user_id": 5})  # dict-item
FeatureService("a", [user])  # list-item
FeatureService("a", [age])  # list-item
request = RequestSource([Field("n", Int64)])
@on_demand_feature_view(sources=[request], features=[age])
def computed(request: dict[str, int]) -> dict[str, int]:
    return {"age": request["n"]}
computed({"n": 1}).keys()
computed({"n": "x"})  # dict-item
computed(1)  # arg-type
computed()  # call-arg
computed({"n": 1}) + 1  # operator
computed["age"]  # index
computed.with_join_key_map({"user_id": "a"})  # attr-defined
computed.test_run([])  # arg-type
OnDemandFeatureView("a", [request], [age])  # list-item
OnDemandFeatureView("a", [files], [Calculation("c", "n")])  # list-item
RequestSource([age])  # list-item
Calculation("c", 5)  # arg-type
on_demand_feature_view(sources=[request], features=[age], mode="spark")  # arg-type
on_demand_feature_view([request], [age])  # call-arg
"""


def mypy(cwd: Path, cache: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    # Installed, the package's own files would not be reported on; found by MYPYPATH they would.
    command += ["--follow-imports=silent", f"--cache-dir={cache}", *arguments]
    environment = {**os.environ, "MYPYPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def test_an_authors_repo_passes_mypy_strict(cache: Path) -> None:
    assert mypy(TYPED_REPO.parent, cache, "-p", "typed_repo") == ""


def test_mypy_finds_what_types_can_tell(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    found = {}
    for line in mypy(tmp_path, cache, "mistakes.py").splitlines():
        place, _, rest = line.partition(": error: ")
        if rest:
            found[int(place.split(":")[1])] = rest.rpartition("[")[2].rstrip("]")
    expected = {
        number: line.partition("  # ")[2]
        for number, line in enumerate(MISTAKES.split("\n"), 1)
        if "  # " in line
    }
    assert found == expected


def test_the_typed_repo_loads() -> None:
    repo = load_repo(TYPED_REPO)
    assert list(repo.services) == ["fraud:v2", "scoring", "columns"]
    service = repo.services["fraud:v2"]
    assert [key.name for key in service.join_keys] == ["user_id", "friend_id", "merchant_id"]
    assert len(repo.views["user_amounts"].features) == 10
    scoring = repo.services["scoring"]
    assert [key.name for key in scoring.join_keys] == ["user_id", "user_a", "user_b"]
    assert [view.name for view in scoring.on_demand_views] == ["amount_ratio", "shares", "difference"]
    assert repo.views["user_amounts"].output_type("transactions_today") == Int64
