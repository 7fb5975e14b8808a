from __future__ import annotations

import asyncio
import gc
import json
import logging

import pytest

from fastserve.errors import InvariantError
from fastserve.server.exchange import Exchange
from fastserve.server.protocol import LINGER_BYTES, LINGER_S
from tests.support.http_connection import GET, NOW_S, Client, answer_body, asking, echoing, post

EXPECTING = b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def bodies(client: Client) -> list[bytes]:
    return [answer.body for answer in client.answers()]


def statuses(client: Client) -> list[int]:
    return [answer.status for answer in client.answers()]


def test_an_answer_is_one_write() -> None:
    client = echoing()
    client.send(post(b"one"), post(b"two"))
    assert len(client.transport.writes) == 2
    assert bodies(client) == [b"one", b"two"]


def test_a_body_in_a_segment_of_its_own_is_never_taken_for_a_request() -> None:
    client = echoing()
    client.send(GET)
    for _ in range(2):
        head, body = post(GET).split(b"\r\n\r\n", 1)
        client.send(head + b"\r\n\r\n", body)
    assert [(exchange.path, exchange.body) for exchange in client.exchanges[1:]] == [("/p", GET)] * 2


def test_answers_leave_in_the_order_of_their_requests() -> None:
    client = asking()
    client.send(post(b"1"), post(b"2") + post(b"3"))
    first, second, third = client.exchanges
    third.respond(200, b"third")
    second.respond(404, b"second")
    assert client.received == b""
    first.respond(200, b"first")
    assert bodies(client) == [b"first", b"second", b"third"]
    assert len(client.transport.writes) == 1


def test_the_answers_of_a_burst_are_one_write() -> None:
    client = echoing()
    client.send(b"".join(post(b"%d" % number) for number in range(10)))
    assert bodies(client) == [b"%d" % number for number in range(10)]
    assert len(client.transport.writes) == 1


def test_an_exchange_is_answered_once() -> None:
    client = asking()
    client.send(GET)
    client.exchanges[0].respond(200, b"")
    with pytest.raises(InvariantError, match="GET /next is answered twice"):
        client.exchanges[0].respond(200, b"")
    assert statuses(client) == [200]


def test_the_application_sees_what_the_client_sent() -> None:
    client = echoing()
    client.send(
        post(
            b"{}",
            b"/a?b=c",
            b"Authorization: x y\r\nContent-Type: t/u\r\nAccept: v\r\nX-Request-Timeout-Ms: 7\r\n",
        )
    )
    (exchange,) = client.exchanges
    assert (exchange.method, exchange.path, exchange.query, exchange.body) == ("POST", "/a", "b=c", b"{}")
    assert (exchange.authorization, exchange.content_type) == (b"x y", b"t/u")
    assert (exchange.accept, exchange.request_timeout_ms) == (b"v", b"7")


def test_an_application_that_fails_is_a_500_and_the_connection_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(exchange: Exchange) -> None:
        if exchange.path == "/fail":
            raise ZeroDivisionError
        exchange.respond(200, b"")

    client = Client(fail)
    with caplog.at_level(logging.ERROR):
        client.send(post(b"", b"/fail"), GET)
    assert statuses(client) == [500, 200]
    assert json.loads(client.answers()[0].body)["message"] == "internal error"
    assert "the application failed on POST /fail" in caplog.text
    assert client.shared.server_errors == 1


def test_an_answer_that_is_no_answer_becomes_a_500(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(lambda exchange: exchange.respond(200, b"", b"a\r\nb"))
    with caplog.at_level(logging.ERROR):
        client.send(GET)
    assert statuses(client) == [500]


def test_a_client_that_left_gets_no_answer_and_its_exchanges_know() -> None:
    client = asking()
    client.send(GET, GET)
    client.protocol.connection_lost(None)
    assert [exchange.gone for exchange in client.exchanges] == [True, True]
    client.exchanges[1].respond(200, b"")
    assert client.received == b""
    assert client.shared.open == set()


def test_a_client_that_shuts_its_side_gets_its_answers_first() -> None:
    client = asking()
    client.send(GET)
    assert client.protocol.eof_received()
    assert not client.transport.is_shut
    client.exchanges[0].respond(200, b"late")
    assert bodies(client) == [b"late"]
    assert client.transport.is_shut


def test_a_client_that_shuts_its_side_between_requests_is_let_go() -> None:
    client = echoing()
    client.send(GET)
    assert not client.protocol.eof_received()


@pytest.mark.parametrize("end", [5, -1], ids=["head", "body"])
def test_half_a_request_is_refused_when_no_more_can_come(end: int) -> None:
    client = echoing()
    client.send(post(b"body")[:end])
    assert client.protocol.eof_received()
    assert statuses(client) == [400]
    assert client.transport.is_shut


def test_after_the_last_answer_the_rest_is_thrown_away_until_the_client_closes() -> None:
    client = echoing()
    client.send(b"BREW / HTTP/1.1\r\n\r\n", GET, GET)
    assert client.transport.is_shut
    assert not client.transport.is_closed
    assert len(client.answers()) == 1
    assert not client.protocol.eof_received()


def test_who_goes_on_sending_after_the_last_answer_is_cut() -> None:
    client = echoing()
    client.send(b"BREW / HTTP/1.1\r\n\r\n")
    client.send(*[bytes(LINGER_BYTES // 4)] * 5)
    assert client.transport.is_aborted


def test_who_does_not_close_after_the_last_answer_is_cut() -> None:
    client = echoing()
    client.send(b"BREW / HTTP/1.1\r\n\r\n")
    client.shared.on_tick(NOW_S + LINGER_S - 0.1, 0)
    assert not client.transport.is_aborted
    client.shared.on_tick(NOW_S + LINGER_S + 0.1, 0)
    assert client.transport.is_aborted


def test_a_client_that_waits_for_it_is_told_to_continue() -> None:
    client = echoing()
    client.send(EXPECTING)
    assert client.received == CONTINUE
    client.send(b"hi")
    assert [(answer.status, answer.body) for answer in client.answers()] == [(100, b""), (200, b"hi")]


def test_a_client_that_does_not_wait_is_not_told_to_continue() -> None:
    client = echoing()
    client.send(EXPECTING + b"hi")
    assert statuses(client) == [200]


def test_a_client_is_told_to_continue_after_the_answers_before() -> None:
    client = asking()
    client.send(GET + EXPECTING)
    assert client.received == b""
    client.exchanges[0].respond(200, b"first")
    assert statuses(client) == [200, 100]


def test_a_client_whose_body_is_too_large_is_not_told_to_continue() -> None:
    client = echoing()
    client.send(EXPECTING.replace(b": 2", b": 2000000"))
    assert statuses(client) == [413]


def test_the_answer_to_head_has_no_body() -> None:
    client = Client(lambda exchange: exchange.respond(200, b"hello"))
    client.send(GET.replace(b"GET", b"HEAD"), GET)
    head, get = client.answers(["HEAD"])
    assert (head.headers["content-length"], head.body, get.body) == ("5", b"", b"hello")


def test_a_method_that_no_path_has_is_told_which_there_are() -> None:
    client = echoing()
    client.send(post(b"x").replace(b"POST", b"PATCH"), GET)
    refused, answered = client.answers()
    assert (refused.status, refused.headers["allow"], answered.status) == (405, "GET, HEAD, POST", 200)
    assert json.loads(refused.body)["code"] == 12


def test_an_http10_client_that_keeps_its_connection_is_told_that_we_do() -> None:
    client = echoing()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.answers()[0].headers["connection"] == "keep-alive"
    assert not client.transport.is_shut


# --- limits ---


def test_too_many_unanswered_requests_pause_reading_until_there_are_fewer() -> None:
    async def story() -> None:
        client = asking(max_pipelined=3)
        client.send(b"".join(post(b"%d" % number) for number in range(8)))
        assert len(client.exchanges) == 3
        assert not client.transport.reads
        for number in range(8):
            exchange = client.exchanges[number]
            exchange.respond(200, exchange.body)
            assert len(client.exchanges) <= number + 4
            await asyncio.sleep(0)
        assert bodies(client) == [b"%d" % number for number in range(8)]
        assert client.transport.reads

    asyncio.run(story())


def test_requests_one_by_one_do_not_pass_the_cap_either() -> None:
    async def story() -> None:
        client = asking(max_pipelined=2)
        client.send(GET, GET, GET)
        assert len(client.exchanges) == 2
        assert not client.transport.reads

    asyncio.run(story())


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def story() -> None:
        client = echoing()
        client.transport.holds = True
        client.transport.set_write_buffer_limits(high=1000)
        client.send(post(bytes(2000)))
        assert not client.transport.reads
        client.send(GET)
        assert len(client.exchanges) == 1
        client.protocol.resume_writing()
        await asyncio.sleep(0)
        assert len(client.exchanges) == 2
        assert client.transport.reads

    asyncio.run(story())


def test_a_client_that_lets_answers_pile_up_is_cut() -> None:
    client = asking(write_buffer_bytes=10_000)
    client.transport.holds = True
    client.transport.set_write_buffer_limits(high=1000)
    client.send(GET * 8)
    for exchange in client.exchanges[:4]:
        exchange.respond(200, bytes(2000))
    assert not client.transport.is_aborted
    client.exchanges[4].respond(200, bytes(2000))
    assert client.transport.is_aborted


def test_answers_that_wait_for_an_earlier_one_are_capped_too() -> None:
    client = asking(write_buffer_bytes=10_000)
    client.send(GET * 8)
    for exchange in client.exchanges[:0:-1]:
        exchange.respond(200, bytes(2000))
    assert client.transport.is_aborted


def test_a_client_that_stops_reading_for_too_long_is_cut() -> None:
    client = echoing(write_timeout_s=30)
    client.transport.holds = True
    client.transport.set_write_buffer_limits(high=1000)
    client.send(post(bytes(9000)))
    client.shared.on_tick(NOW_S + 29, 0)
    client.transport.release(100)
    client.shared.on_tick(NOW_S + 31, 0)
    client.shared.on_tick(NOW_S + 60, 0)
    assert not client.transport.is_aborted
    client.shared.on_tick(NOW_S + 62, 0)
    assert client.transport.is_aborted


# --- times ---


def test_an_idle_connection_is_closed_after_the_timeout() -> None:
    client = echoing(idle_timeout_s=90)
    client.shared.on_tick(NOW_S + 50, 0)
    client.send(GET)
    client.shared.on_tick(NOW_S + 139, 0)
    assert not client.transport.is_closed
    client.shared.on_tick(NOW_S + 141, 0)
    assert (client.transport.is_closed, client.transport.is_aborted) == (True, False)


def test_a_connection_that_waits_for_its_answer_is_not_idle() -> None:
    client = asking(idle_timeout_s=90)
    client.send(GET)
    client.shared.on_tick(NOW_S + 1000, 0)
    assert not client.transport.is_closed


def test_a_head_that_does_not_end_is_refused_in_time_however_it_drips() -> None:
    client = echoing(header_timeout_s=10)
    for second in range(10):
        client.shared.on_tick(NOW_S + second, 0)
        client.send(GET[second : second + 1])
    assert client.received == b""
    client.shared.on_tick(NOW_S + 10.5, 0)
    assert statuses(client) == [408]
    assert client.answers()[0].headers["connection"] == "close"


def test_a_body_may_be_slow_but_not_too_slow() -> None:
    client = echoing(header_timeout_s=10, body_rate_bytes_per_s=100)
    request = post(bytes(10_000))
    client.send(request[:-10_000])
    for second in range(1, 40):
        client.send(bytes(150))
        client.shared.on_tick(NOW_S + second, 0)
    assert client.received == b""
    for second in range(40, 70):
        client.shared.on_tick(NOW_S + second, 0)
    assert statuses(client) == [408]


def test_chunks_that_were_taken_count_for_the_rate() -> None:
    client = echoing(header_timeout_s=10, body_rate_bytes_per_s=100)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for second in range(1, 40):
        client.send(b"96\r\n" + bytes(150) + b"\r\n")
        client.shared.on_tick(NOW_S + second, 0)
    client.send(b"0\r\n\r\n")
    assert statuses(client) == [200]


def test_a_date_is_the_ticks_second() -> None:
    client = echoing()
    client.shared.on_tick(NOW_S, 0)
    client.send(GET)
    assert client.answers()[0].headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"


# --- draining ---


def test_while_draining_the_next_answer_is_the_last() -> None:
    client = asking()
    client.send(GET)
    client.shared.drain(NOW_S)
    client.exchanges[0].respond(200, b"")
    assert client.answers()[0].headers["connection"] == "close"
    assert client.transport.is_shut


def test_while_draining_the_answers_of_requests_already_here_all_leave() -> None:
    client = asking()
    client.send(GET + GET)
    client.shared.drain(NOW_S)
    for exchange in client.exchanges:
        exchange.respond(200, b"")
    assert [answer.headers.get("connection") for answer in client.answers()] == [None, "close"]


def test_while_draining_an_idle_connection_is_closed_after_the_grace() -> None:
    client = echoing(drain_grace_s=0.5)
    client.shared.on_tick(NOW_S + 60, 0)
    client.shared.drain(NOW_S + 60)
    client.shared.on_tick(NOW_S + 60.4, 0)
    assert not client.transport.is_closed
    client.shared.on_tick(NOW_S + 60.6, 0)
    assert client.transport.is_closed


def test_a_request_within_the_grace_is_still_answered() -> None:
    client = echoing()
    client.shared.drain(NOW_S)
    client.send(GET)
    (answer,) = client.answers()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


# --- memory ---


def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    client = Client(answer_body)
    client.send(GET, post(b"x"))
    gc.collect()
    client.exchanges.clear()
    client.send(GET, post(b"x"), b"BREW / HTTP/1.1\r\n\r\n")
    client.exchanges.clear()
    client.transport.writes.clear()
    assert gc.collect() == 0


def test_heads_are_remembered_up_to_a_number() -> None:
    client = echoing()
    for number in range(1500):
        client.send(post(b"x", b"/%d" % number))
    assert len(client.exchanges) == 1500
    assert 0 < len(client.shared.known_heads) <= 512


@pytest.mark.parametrize(
    "request_bytes", [GET, GET + GET, GET.replace(b"GET", b"HEAD"), GET.replace(b"1.1", b"1.0")]
)
def test_an_answer_in_parts_is_the_same_as_one_in_whole(request_bytes: bytes) -> None:
    parts, whole = asking(), asking()
    parts.send(request_bytes)
    whole.send(request_bytes)
    for exchange in parts.exchanges:
        exchange.respond_json(b'{"result":', b"[1.5,null]", b"}")
    for exchange in whole.exchanges:
        exchange.respond(200, b'{"result":[1.5,null]}')
    assert parts.received == whole.received
    assert b" 200 OK\r\n" in parts.received


def test_an_answer_in_parts_is_given_once() -> None:
    client = asking()
    client.send(GET)
    client.exchanges[0].respond_json(b"1")
    with pytest.raises(InvariantError, match="answered twice"):
        client.exchanges[0].respond_json(b"2")
