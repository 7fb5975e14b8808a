"""The admin listener's application: probes, and whatever pages are added."""

from __future__ import annotations

import logging

import pytest

from fastserve.errors import InvariantError, RequestError
from fastserve.server.admin import AdminApplication, Page
from fastserve.server.exchange import Exchange
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import Answer, Connection, Readiness


def asked(admin: AdminApplication, method: str, path: str) -> Answer:
    head = RequestHead(method, path, "", 0, False, True, False, False, None, None, None, None)
    connection = Connection()
    admin(Exchange(connection, head, b"", 0.0))
    (answer,) = connection.answers
    return answer


def page(text: str) -> Page:
    return lambda exchange: exchange.respond(200, text.encode())


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def admin(readiness: Readiness) -> AdminApplication:
    return AdminApplication(readiness)


def test_it_tells_whether_the_server_lives_and_is_ready(
    admin: AdminApplication, readiness: Readiness
) -> None:
    assert asked(admin, "GET", "/healthz").json == {"status": "alive"}
    assert asked(admin, "HEAD", "/readyz").status == 200
    readiness.is_ready = False
    assert asked(admin, "GET", "/readyz").status == 503
    assert asked(admin, "GET", "/healthz").status == 200


def test_pages_are_found_by_path_and_by_what_they_begin_with(admin: AdminApplication) -> None:
    for path in ("/", "/views/*", "/views/old/*", "/views/old"):
        admin.add(path, page(path))
    answers = {
        "/": b"/",
        "/views/a": b"/views/*",
        "/views/a/b": b"/views/*",
        "/views/": b"/views/*",
        "/views/old": b"/views/old",
        "/views/old/1": b"/views/old/*",
    }
    assert {path: asked(admin, "GET", path).body for path in answers} == answers
    assert asked(admin, "GET", "/views").status == 404


def test_methods_and_paths_that_lead_nowhere_are_told(admin: AdminApplication) -> None:
    admin.add("/try", lambda exchange: exchange.respond(200, b""), ("POST",))
    refused = asked(admin, "GET", "/try")
    assert (refused.status, refused.headers) == (405, {b"Allow": b"POST"})
    assert asked(admin, "POST", "/try").status == 200
    assert asked(admin, "POST", "/healthz").headers == {b"Allow": b"GET, HEAD"}
    assert asked(admin, "GET", "/" + "x" * 99).json["error"].startswith("Unknown path '/xxx")


def test_a_path_has_one_page(admin: AdminApplication) -> None:
    with pytest.raises(InvariantError, match="expected one page for /healthz, got two"):
        admin.add("/healthz", lambda exchange: exchange.respond(200, b""))


def test_a_page_that_fails_is_answered_and_logged(
    admin: AdminApplication, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Exchange) -> None:
        raise ZeroDivisionError

    def refuses(_: Exchange) -> None:
        raise RequestError(400, "not so")

    admin.add("/fails", fails)
    admin.add("/refuses", refuses)
    with caplog.at_level(logging.ERROR):
        assert asked(admin, "GET", "/fails").status == 500
    assert "a request to /fails failed" in caplog.text
    assert asked(admin, "GET", "/refuses").status == 400
