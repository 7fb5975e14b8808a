"""The console's pages: what they say, whom they answer, and that no definition gets to be markup."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fastserve import (
    Aggregate,
    Attribute,
    Calculation,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    OnDemandFeatureView,
    PushSource,
    RequestSource,
    String,
    Timestamp,
)
from fastserve.config import Settings
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import Repo
from fastserve.server.console.pages import FILES, is_local_host
from tests.server.console.test_html import seen
from tests.server.console.world import ConsoleWorld
from tests.support.api_plan import api_plan
from tests.support.feast_golden import feast_plan
from tests.support.plans import workspace_plan

EVIL = "</p></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"
PAGES = ["/", "/console/services/everything%3Av2", "/console/services/a.b-c", "/console/views/spending"]


@pytest.fixture(scope="module")
def console() -> ConsoleWorld:
    return ConsoleWorld(api_plan())


def text_of(console: ConsoleWorld, path: str) -> str:
    answer = console.get(path)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def evil_plan() -> WorkspacePlan:
    """Return a plan in which everything that may be any text is markup that wants out."""
    about: dict[str, Any] = {"description": EVIL, "owner": EVIL, "tags": {EVIL: EVIL}}
    told: dict[str, Any] = {"description": EVIL, "tags": {EVIL: EVIL}}
    user = Entity("user", Field("user_id", String), **about)
    files = FileSource("files", path=f"/{EVIL}.csv", timestamp_field="at", **about)
    pushes = PushSource(
        "pushes",
        [Field("user_id", String), Field("at", Timestamp), Field("amount", Float64)],
        timestamp_field="at",
        **about,
    )
    profile = FeatureView(
        "profile",
        entities=user,
        source=files,
        features=[Attribute("age", Float64, **told)],
        transformation=f"SELECT '{EVIL.replace(chr(39), '')}' FROM files",
        **about,
    )
    spending = FeatureView(
        "spending",
        entities=user,
        source=pushes,
        features=[Aggregate(Field("amount", Float64), "sum", timedelta(days=1), **told)],
        aggregation_interval=timedelta(hours=1),
        **about,
    )
    source = RequestSource([Field("amount", Float64)])
    computed = OnDemandFeatureView(
        "computed", sources=[source], features=[Calculation("more", "amount + 1", **told)], **about
    )
    service = FeatureService("all", features=[profile, spending, computed], **about)
    views = {"profile": profile, "spending": spending}
    return plan_workspace(
        Repo(Path(), "w", {}, {}, views, {"all": service}, on_demand_views={"computed": computed})
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/console/services/all",
        "/console/views/profile",
        "/console/views/spending",
        "/console/views/computed",
    ],
)
def test_no_definition_gets_to_be_markup(path: str) -> None:
    text = text_of(ConsoleWorld(evil_plan()), path)
    assert "<script>" not in text
    assert "<img" not in text
    made = seen(text)
    scripts = [attributes for name, attributes in made.elements if name == "script"]
    assert [sorted(each) for each in scripts] == [["defer", "src"]]
    for name, attributes in made.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (name, attributes)
        for key in ("href", "src"):
            assert not (attributes.get(key) or "").startswith(("javascript:", "data:", "http", "//"))
    assert EVIL in "".join(made.texts)


@pytest.mark.parametrize("path", PAGES)
def test_pages_fetch_nothing_from_elsewhere_and_say_so(console: ConsoleWorld, path: str) -> None:
    answer = console.get(path)
    assert answer.content_type == b"text/html; charset=utf-8"
    policy = answer.headers[b"Content-Security-Policy"].decode()
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers[b"X-Content-Type-Options"] == b"nosniff"
    assert answer.headers[b"Cache-Control"] == b"no-store"
    up = "./" if path == "/" else "../../"
    made = seen(answer.body.decode())
    fetched = [a.get("href") or a.get("src") for name, a in made.elements if name in {"link", "script"}]
    assert [re.sub(r"\?v=[0-9a-f]{12}$", "", str(each)) for each in fetched] == [
        f"{up}console/icon.svg",
        f"{up}console/console.css",
        f"{up}console/console.js",
    ]


def test_the_catalogue_is_complete_without_a_script(console: ConsoleWorld) -> None:
    plan = api_plan()
    overview = text_of(console, "/")
    for name in (*plan.services, *plan.views, "echo", "pushes"):
        assert name in overview
    for service in plan.services.values():
        page = text_of(console, f"/console/services/{service.name}")
        shown = "".join(seen(page).texts)
        assert all(output.name in shown for output in service.outputs)
        assert all(str(output.dtype) in shown for output in service.outputs)
        assert "curl -s http://127.0.0.1:8080/api/v1/feature-service/get-features" in shown
    for view in plan.views.values():
        shown = "".join(seen(text_of(console, f"/console/views/{view.name}")).texts)
        assert all(name in shown for name in view.view.feature_names)


def test_every_link_leads_to_a_page(console: ConsoleWorld) -> None:
    waiting, found = ["/"], set()
    while waiting:
        path = waiting.pop()
        found.add(path)
        folder = path.rpartition("/")[0]
        for name, attributes in seen(text_of(console, path)).elements:
            to = attributes.get("href") if name == "a" else None
            if to is None or to.startswith("#"):
                continue
            to = to.partition("#")[0]
            target = "/" + to.removeprefix("./").removeprefix("../../")
            assert folder.count("/") == to.count("../"), (path, to)
            if target not in {*found, "/metrics", "/openapi.json"}:
                waiting.append(target)
    assert len(found) == 1 + 4 + 5 + 1  # the overview, services, feature views, the on-demand view


def test_what_lies_in_redis_has_no_price(console: ConsoleWorld) -> None:
    redis = ConsoleWorld(api_plan(), Settings(admin_port=0, store="redis://127.0.0.1"))
    priced, charged_nothing = (text_of(world, "/").count("$") for world in (console, redis))
    assert charged_nothing < priced
    assert "$" in text_of(console, PAGES[1])
    assert "$" not in text_of(redis, PAGES[1])
    shown = "".join(seen(text_of(redis, PAGES[1])).texts)
    assert "Redis charges nothing for reads and writes." in shown
    assert "Priced as" not in shown


def test_a_workspace_without_services_has_a_page() -> None:
    page = text_of(ConsoleWorld(workspace_plan({})), "/")
    assert "<h2" in page
    assert "Push sources" not in page


def test_each_entry_has_a_label_and_each_table_a_caption(console: ConsoleWorld) -> None:
    made = seen(text_of(console, "/console/services/everything:v2"))
    labelled = {attributes.get("for") for name, attributes in made.elements if name == "label"}
    entries = [a for name, a in made.elements if name in {"input", "textarea", "select"}]
    assert len(entries) == 2 * (4 + 9)
    assert all(each.get("id") in labelled or each.get("aria-label") for each in entries)
    names = [name for name, _ in made.elements]
    assert names.count("table") == names.count("caption") >= 4
    assert names.count("h1") == names.count("main") == 1


@pytest.mark.parametrize("name", FILES)
def test_files_may_be_kept_for_ever_since_their_address_changes(console: ConsoleWorld, name: str) -> None:
    version = re.search(r"console\.js\?(v=[0-9a-f]{12})\"", console.get("/").body.decode())
    assert version is not None
    answer = console.get(f"/console/{name}", query=version[1])
    assert (answer.status, answer.content_type) == (200, FILES[name])
    assert b"immutable" in answer.headers[b"Cache-Control"]
    for other in ("", "v=0123456789ab"):  # of a page of another version, while servers are replaced
        assert console.get(f"/console/{name}", query=other).headers[b"Cache-Control"] == b"no-store"
    assert b"http://" not in answer.body.replace(b"http://www.w3.org/", b"")
    assert b"https://" not in answer.body


def test_views_that_somebody_else_writes_have_no_age(console: ConsoleWorld) -> None:
    assert 'data-view="spending"' in console.get("/").body.decode()
    of_feast = ConsoleWorld(feast_plan()).get("/").body.decode()
    assert "data-view" not in of_feast
    assert "Freshness" not in of_feast


def test_the_script_never_parses_markup(console: ConsoleWorld) -> None:
    script = console.get("/console/console.js").body.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in script


def test_names_that_there_are_not_are_told(console: ConsoleWorld) -> None:
    assert console.get("/console/services/none").json["message"] == "Unknown feature service 'none'"
    assert console.get("/console/views/%3Cb%3E").json["message"] == "Unknown view '<b>'"
    assert console.get("/console/services/").status == 404


@pytest.mark.parametrize(
    "host, is_answered",
    [
        (b"127.0.0.1:9090", True),
        (b"localhost:9090", True),
        (b"[::1]:9090", True),
        (b"10.1.2.3", True),
        (None, True),
        (b"evil.example.org:9090", False),
        (b"localhost.example.org", False),
        (b"127.0.0.1.example.org", False),
    ],
)
def test_a_name_of_elsewhere_does_not_lead_here(
    console: ConsoleWorld, host: bytes | None, *, is_answered: bool
) -> None:
    assert is_local_host(host) is is_answered
    for path in ("/", "/console/live.json", "/console/views/spending", "/console/console.js"):
        assert console.get(path, host=host).status == (200 if is_answered else 403)
    (answer,) = console.send("POST", "/console/try", b"{}", host=host).answers
    assert answer.status == (400 if is_answered else 403)


def test_an_address_that_others_reach_answers_to_any_name() -> None:
    console = ConsoleWorld(api_plan(), Settings(admin_port=0, admin_host="0.0.0.0"))
    assert console.get("/", host=b"fastserve-admin.prod.svc:9090").status == 200


def test_the_document_of_the_admin_listener_names_the_clients_port(console: ConsoleWorld) -> None:
    assert console.get("/openapi.json").json["servers"] == [{"url": "http://127.0.0.1:8080"}]
