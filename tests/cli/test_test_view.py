from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.support.shop_repo import DEFINITIONS, write_shop_repo

COMPUTED = """
import fastserve

request = fs.RequestSource(schema=[
    fs.Field("amount", fs.Float64), fs.Field("n", fs.Int64), fs.Field("at", fs.Timestamp),
    fs.Field("home", fs.Struct([fs.Field("street", fs.String), fs.Field("number", fs.Int64)])),
    fs.Field("scores", fs.Map(fs.String, fs.Float64)), fs.Field("ids", fs.Array(fs.Int64)),
])

@fs.on_demand_feature_view(sources=[request], features=list(map(fs.Attribute, request.schema)))
def echo(request):
    return request

@fs.on_demand_feature_view(
    sources=[echo[["n"]], profile[["age"]]], features=[fs.Attribute("share", fs.Float64)]
)
def share(echo, profile):
    return {"share": profile["age"] / echo["n"]}

@fs.on_demand_feature_view(sources=[profile], features=[fs.Attribute("at", fs.Timestamp)])
def when(profile, context):
    return {"at": context.request_timestamp}

@fs.on_demand_feature_view(sources=[profile], features=[fs.Attribute("x", fs.Int64)])
def wrong(profile):
    return {"x": "text"}
"""
REQUEST = {
    "amount": 1.5,
    "n": 9007199254740993,
    "at": "2024-01-01T00:00:00.25Z",
    "home": {"street": "x", "number": 4},
    "scores": {"a": 0.5, "b": None},
    "ids": [1, 2],
}


@pytest.fixture
def repo(tmp_path: Path) -> str:
    return str(write_shop_repo(tmp_path / "shop", DEFINITIONS + COMPUTED))


def write(content: Any, name: str = "case.json") -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_the_result_is_printed_as_it_could_be_given(run: Run, repo: str) -> None:
    ran = run("test-view", "echo", "--input", write({"inputs": {"request": REQUEST}}), "--repo", repo)
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == REQUEST | {"at": "2024-01-01T00:00:00.250000Z"}


def test_values_are_read_as_requests_write_them(run: Run, repo: str) -> None:
    request = REQUEST | {
        "amount": "-Infinity",
        "n": "9007199254740993",
        "ids": ["1", "2"],
        "at": "2024-01-01",
    }
    case = {"inputs": {"request": request | {"home": {"street": "x", "number": "4"}}}}
    ran = run("test-view", "echo", "--input", write(case), "--repo", repo)
    assert (ran.code, ran.err) == (0, "")
    told = {"amount": "-Infinity", "at": "2024-01-01T00:00:00Z"}
    assert json.loads(ran.out) == REQUEST | told


def test_a_case_may_say_what_is_expected(run: Run, repo: str) -> None:
    inputs = {"profile": {"age": 1}, "echo": {"n": 3}}
    near = write({"inputs": inputs, "expected": {"share": 0.3333333333}})
    assert run("test-view", "share", "--input", near, "--repo", repo).code == 0
    off = write({"inputs": inputs, "expected": {"share": 0.34}})
    ran = run("test-view", "share", "--input", off, "--repo", repo)
    assert (ran.code, json.loads(ran.out)) == (1, {"share": 1 / 3})
    assert ran.err == "fastserve: error: share: expected 0.34, got 0.3333333333333333\n"


def test_nested_values_are_compared(run: Run, repo: str) -> None:
    for changed, code in (({}, 0), ({"ids": [1, 3]}, 1), ({"scores": {"a": 0.5}}, 1), ({"n": None}, 1)):
        case = write({"inputs": {"request": REQUEST}, "expected": REQUEST | changed})
        assert run("test-view", "echo", "--input", case, "--repo", repo).code == code


def test_several_cases_are_told_apart(run: Run, repo: str) -> None:
    cases = [
        {"inputs": {"request": REQUEST, "profile": {"age": 1}}},
        {"inputs": {"echo": {"n": 0}, "profile": {"age": 1}}},
        {"inputs": {"echo": {"n": 2}, "profile": {"age": 1}}, "expected": {"share": 0.5}},
    ]
    ran = run("test-view", "share", "--input", write(cases), "--repo", repo)
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert 'return {"share": profile["age"] / echo["n"]}' in ran.err
    told = "case 2: ZeroDivisionError: division by zero (when evaluating UDF share)"
    assert ran.err.endswith(f"fastserve: error: {told}\n")
    assert '"share": 0.5' in ran.out


def test_a_result_that_does_not_fit_is_told_as_a_caller_would_be(run: Run, repo: str) -> None:
    ran = run("test-view", "wrong", "--input", write({"inputs": {"profile": {}}}), "--repo", repo)
    assert ran.code == 1
    told = "TypeError: feature `x`: expected int64 (an int), got str 'text' (when evaluating UDF wrong)"
    assert ran.err.endswith(f"fastserve: error: {told}\n")


def test_the_time_of_the_request_is_the_case_s(run: Run, repo: str) -> None:
    case: dict[str, Any] = {"inputs": {"profile": {}}}
    ran = run("test-view", "when", "--input", write(case), "--repo", repo)
    assert (ran.code, ran.out) == (2, "")
    assert "request_timestamp (expected a datetime with a time zone, which the view asks for" in ran.err
    case["request_timestamp"] = "2024-01-01T02:00:00+02:00"
    ran = run("test-view", "when", "--input", write(case), "--repo", repo)
    assert json.loads(ran.out) == {"at": "2024-01-01T00:00:00Z"}


def test_standard_input_is_read_where_it_is_asked_for(
    run: Run, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"inputs": {"request": REQUEST}})))
    assert run("test-view", "echo", "--input", "-", "--repo", repo).code == 0


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "'case.json': expected a file with JSON, got: Expecting property name"),
        ("5", "case 1: expected an object with inputs and at most request_timestamp, expected, got 5"),
        ("{}", "'case.json', case 1: expected an object with inputs and at most request_timestamp"),
        ('{"inputs": 5}', "got ['inputs']"),
        ('[{"inputs": {}, "result": {}}]', "got ['inputs', 'result']"),
        (
            '{"inputs": {"profile": {"age": 1.5}, "echo": {}}}',
            "input profile.age: expected int64 (an int), got float",
        ),
        (
            '{"inputs": {"nosuch": {}}}',
            "input (expected one of the sources echo, profile, request, got 'nosuch')",
        ),
        ('{"inputs": {"profile": 5}}', "input 'profile' (expected a dict of its values by name, got 5)"),
        ('{"inputs": {}, "request_timestamp": "soon"}', "time: expected an ISO-8601 time such as"),
        (
            '{"inputs": {"echo": {"n": 1}, "profile": {"age": 1}}, "expected": {"x": 1}}',
            "expected: expected only share, got 'x'",
        ),
        (
            '{"inputs": {"echo": {"n": 1}, "profile": {"age": 1}}, "expected": 5}',
            "expected: expected an object of features, got 5",
        ),
    ],
    ids=map(str, range(11)),
)
def test_a_wrong_case_is_told(run: Run, repo: str, content: str, message: str) -> None:
    ran = run("test-view", "share", "--input", write(content), "--repo", repo)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_an_unknown_view_and_a_missing_file_are_told(run: Run, repo: str) -> None:
    ran = run("test-view", "profile", "--input", write({"inputs": {}}), "--repo", repo)
    assert (
        ran.err
        == "fastserve: error: on-demand view: expected one of echo, share, when, wrong, got 'profile'\n"
    )
    ran = run("test-view", "share", "--input", "nowhere.json", "--repo", repo)
    assert (ran.code, ran.err) == (
        2,
        "fastserve: error: 'nowhere.json': expected a file with JSON, got: No such file or directory\n",
    )
