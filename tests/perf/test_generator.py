from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import uvloop

from perf.load.child import module_process, run_load
from perf.load.generator import run_plan
from perf.load.load_plan import LoadPlan, Stream

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def stream(**changes: Any) -> Stream:
    return Stream("s", "/v", '{"user_id":"', '"}', **{"connections": 4, "entities": 100, **changes})


def expect_hello(_configuration: dict[str, Any]) -> Callable[[str, bytes], str | None]:
    return lambda key, body: None if body == b"hello" else f"{key} got {body!r}"


class Server(asyncio.Protocol):
    """Answers each whole request through a function of its number and the transport."""

    numbers = 0

    def __init__(self, answer: Callable[[int, asyncio.Transport], None]) -> None:
        self._answer = answer
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2])
        if blank and len(body) == length:
            assert orjson.loads(body)["user_id"].startswith("user")
            self._data = b""
            Server.numbers += 1
            self._answer(Server.numbers, self._transport)


def run_against(
    answer: Callable[[int, asyncio.Transport], None], load: Stream, **plan: Any
) -> dict[str, Any]:
    async def measure() -> dict[str, Any]:
        Server.numbers = 0
        server = await asyncio.get_running_loop().create_server(lambda: Server(answer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await run_plan(LoadPlan(port, (load,), **{"warmup_s": 0.05, "duration_s": 0.3, **plan}))
        finally:
            server.close()

    return uvloop.run(measure())


def test_a_closed_loop_counts_verified_answers() -> None:
    load = stream(verify="tests.perf.test_generator:expect_hello", verify_every=10)

    report = run_against(lambda _, transport: transport.write(ANSWER), load, warmup_s=0.0)

    (found,) = report["streams"]
    assert report["requests"] > 100
    assert (found["errors"], found["wrong"], found["response_bytes"]) == (0, 0, 5)
    assert found["verified"] == pytest.approx(report["requests"] / 10, rel=0.3)
    assert report["processes"]["generator"]["cpu_us_per_request"] > 0


def test_wrong_values_are_reported() -> None:
    load = stream(verify="tests.perf.test_generator:expect_hello", verify_every=1)

    report = run_against(lambda _, transport: transport.write(ANSWER.replace(b"hello", b"hullo")), load)

    (found,) = report["streams"]
    assert found["wrong"] == found["verified"] > 0
    assert "got b'hullo'" in found["problems"][0]


def test_answers_in_pieces_are_put_together() -> None:
    def drip(_: int, transport: asyncio.Transport, at: int = 0) -> None:
        # One piece sets the next one's time: timers that are set together may run in any order when late.
        transport.write(ANSWER[at : at + 10])
        if at + 10 < len(ANSWER):
            asyncio.get_running_loop().call_later(0.002, lambda: drip(0, transport, at + 10))

    load = stream(verify="tests.perf.test_generator:expect_hello", verify_every=1)

    report = run_against(drip, load)

    (found,) = report["streams"]
    assert (found["errors"], found["wrong"]) == (0, 0)
    assert found["verified"] > 0


def test_refusals_and_lost_connections_are_errors() -> None:
    def answer(number: int, transport: asyncio.Transport) -> None:
        if number % 10 == 0:
            transport.close()
        else:
            transport.write(ANSWER if number % 10 < 9 else ANSWER.replace(b"200 OK", b"503 No"))

    report = run_against(answer, stream())

    (found,) = report["streams"]
    assert found["lost"] == pytest.approx(report["requests"] / 9, rel=0.2)
    assert found["errors"] == pytest.approx(2 * found["lost"], rel=0.2)


def test_an_open_loop_keeps_its_rate_and_counts_waiting_from_the_intended_start() -> None:
    # One connection and answers after 10 ms make at most 100 a second: arrivals at 200 wait ever longer.
    def slowly(_: int, transport: asyncio.Transport) -> None:
        asyncio.get_running_loop().call_later(0.01, transport.write, ANSWER)

    load = stream(rate_per_s=200.0, connections=1, arrivals="even")

    report = run_against(slowly, load, duration_s=0.5, warmup_s=0.0)

    (found,) = report["streams"]
    assert report["fs_qps"] == pytest.approx(200, rel=0.05)
    assert found["latency_ms"]["p99"] > 300
    assert found["errors"] == 0


def test_an_open_loop_that_keeps_up_shows_the_servers_own_latency() -> None:
    def slowly(_: int, transport: asyncio.Transport) -> None:
        asyncio.get_running_loop().call_later(0.01, transport.write, ANSWER)

    report = run_against(slowly, stream(rate_per_s=100.0, connections=8), duration_s=0.5)

    (found,) = report["streams"]
    assert 10 <= found["latency_ms"]["p50"] < 40
    assert found["unanswered"] == 0


def test_what_is_never_answered_is_an_error() -> None:
    report = run_against(lambda number, transport: None, stream(), timeout_s=0.1)

    (found,) = report["streams"]
    assert report["requests"] == 0
    assert found["errors"] >= 4


def test_the_generator_and_the_floor_run_as_processes() -> None:
    with module_process("perf.floor", ["--answer-bytes", "100"]) as (pid, port):
        plan = LoadPlan(port, (stream(),), warmup_s=0.1, duration_s=0.3, watch={"server": pid})
        report = run_load(plan)

    assert report["streams"][0]["errors"] == 0
    assert report["processes"]["server"]["cpu_us_per_request"] > 0
    assert report["processes"]["server"]["rss_mib"] > 5


def test_a_plan_survives_its_json() -> None:
    plan = LoadPlan(1, (stream(rate_per_s=5.0), stream()), watch={"server": 1})

    assert LoadPlan.from_json(orjson.loads(orjson.dumps(plan.to_json()))) == plan


def run_streams(streams: tuple[Stream, ...], **plan: Any) -> dict[str, Any]:
    def answer(_: int, transport: asyncio.Transport) -> None:
        transport.write(ANSWER)

    async def measure() -> dict[str, Any]:
        server = await asyncio.get_running_loop().create_server(lambda: Answering(answer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await run_plan(LoadPlan(port, streams, **{"warmup_s": 0.05, "duration_s": 0.4, **plan}))
        finally:
            server.close()

    return uvloop.run(measure())


class Answering(Server):
    """Answers whatever comes, GET included."""

    def data_received(self, data: bytes) -> None:
        self._answer(0, self._transport)


def test_a_mix_keeps_its_shares_in_a_closed_loop_over_common_connections() -> None:
    streams = tuple(
        Stream(name, "/v", '{"user_id":"', '"}', entities=10, share=share)
        for name, share in (("often", 0.6), ("rare", 0.2), ("as_rare", 0.2))
    )

    report = run_streams(streams, mix_connections=4)

    counts = {found["name"]: found["latency_ms"]["count"] for found in report["streams"]}
    assert report["requests"] == sum(counts.values()) > 100
    assert counts["often"] == pytest.approx(0.6 * report["requests"], rel=0.1)
    assert counts["rare"] == pytest.approx(counts["as_rare"], rel=0.3)
    assert [found["errors"] for found in report["streams"]] == [0, 0, 0]
    assert report["all_latency_ms"]["count"] == report["requests"]


@pytest.mark.parametrize("works", [True, False])
def test_a_late_probe_tells_whether_the_server_was_at_work(works: bool) -> None:
    def late(_: int, transport: asyncio.Transport) -> None:
        until_s = time.thread_time() + 0.03
        while works and time.thread_time() < until_s:
            pass
        time.sleep(0.0 if works else 0.03)
        transport.write(ANSWER)

    probe = stream(rate_per_s=10, arrivals="fixed", connections=1, is_probe=True)
    report = run_against(late, probe, watch={"server": os.getpid()})

    (probed,) = report["probes"]
    assert probed["over_10_ms"] >= 2
    assert probed["unjudged_over_10_ms"] == 0
    assert probed["server_worked_over_10_ms"] == (probed["over_10_ms"] if works else 0)


def test_several_services_at_once_have_their_own_rates_and_probes_are_told_apart() -> None:
    probe = Stream(
        "probe",
        "/healthz",
        "",
        "",
        method="GET",
        rate_per_s=100,
        arrivals="fixed",
        connections=1,
        is_probe=True,
    )
    fast, slow = (stream(rate_per_s=rate, arrivals="fixed") for rate in (300.0, 50.0))

    report = run_streams((fast, slow, probe))

    assert [found["fs_qps"] for found in report["streams"]] == pytest.approx([300, 50], rel=0.3)
    (probed,) = report["probes"]
    assert probed["latency_ms"]["count"] == pytest.approx(40, rel=0.4)
    assert probed["over_10_ms"] <= probed["latency_ms"]["count"]
    assert report["requests"] == sum(found["latency_ms"]["count"] for found in report["streams"])
