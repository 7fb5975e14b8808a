from __future__ import annotations

import ast
from pathlib import Path

import orjson
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from perf import bare
from perf.data import prepare_service, request_stream
from perf.load.child import module_process, run_load
from perf.load.load_plan import LoadPlan
from perf.load.standin_client import StandInAddress
from perf.run import bare_arguments
from tests.support.standin import stand_in

__all__ = ["stand_in"]


@pytest.mark.parametrize("service", ["lookups_1x100", "lookups_5x100", "lookups_50x100"])
@pytest.mark.parametrize("entities", [3, 100_000])
def test_every_answer_is_right_also_when_items_come_in_another_order_and_keys_are_shared(
    stand_in: StandInAddress, service: str, entities: int
) -> None:
    prepare_service(stand_in, service)
    stand_in.control(faults={"shuffle": True})
    stream = request_stream(service, connections=16, entities=entities, verify_every=1)

    with module_process("perf.bare", bare_arguments(service, stand_in.port)) as (pid, port):
        report = run_load(LoadPlan(port, (stream,), warmup_s=0.1, duration_s=0.3, watch={"server": pid}))

    (found,) = report["streams"]
    assert (found["errors"], found["wrong"], found["problems"]) == (0, 0, [])
    assert found["verified"] >= report["requests"] > 16


def test_a_calls_body_asks_every_table_for_every_key() -> None:
    body = bare.BatchGet(("a", 'b"')).body({"user1": [], "user2": []})

    keys = [{"k": {"S": "user1"}}, {"k": {"S": "user2"}}]
    assert orjson.loads(body) == {"RequestItems": {"a": {"Keys": keys}, 'b"': {"Keys": keys}}}


def test_calls_are_signed_as_botocore_signs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perf.bare.time.time", lambda: 1_768_046_400.5)
    body = b'{"RequestItems":{}}'

    head = bare.Signer("127.0.0.1:8000").head(body).decode()

    sent = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    names = ("content-type", "x-amz-target", "x-amz-date", "host")
    request = AWSRequest("POST", "http://127.0.0.1:8000/", {name: sent[name] for name in names}, body)
    request.context["timestamp"] = sent["x-amz-date"]
    signer = SigV4Auth(Credentials("bare", "bare"), "dynamodb", "local")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert sent["Authorization"].endswith(f"Signature={signature}")
    assert sent["x-amz-date"] == "20260110T120000Z"
    assert sent["Content-Length"] == str(len(body))


def test_it_shares_no_code_with_what_it_is_held_against() -> None:
    tree = ast.parse(Path(bare.__file__).read_text())

    imported = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
    ]
    assert not [name for name in imported if name and name.startswith("fastserve")]
