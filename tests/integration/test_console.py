"""The console in a browser, on a real server with two workers: what is seen, clicked and typed.

Every test ends with the browser having complained of nothing, so nothing was fetched or run that the pages'
own policy forbids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import orjson
import pytest

from tests.support import browser as browsers
from tests.support.browser import Browser, browsing
from tests.support.feature_server import Row, apply_and_put, ask, serving_features
from tests.support.server_process import Server

pytestmark = pytest.mark.skipif(
    browsers.executables() is None,
    reason="no browser; install Debian's packages chromium and chromium-driver",
)

DEFINITIONS = """
from datetime import timedelta

import fastserve as fs

EVIL = "</script><script>document.title = 'evil'</script><img src=x onerror=alert(1)>"
user = fs.Entity("user", fs.Field("user_id", fs.String))
events = fs.FileSource("events", path="events.csv", timestamp_field="at")
profile = fs.FeatureView(
    "profile",
    entities=user,
    source=events,
    description=EVIL,
    features=[fs.Attribute(f"f{number:02}", fs.Int64, description=EVIL) for number in range(15)]
    + [fs.Attribute("name", fs.String)],
    ttl=timedelta(days=365_00),
)
request = fs.RequestSource([fs.Field("amount", fs.Float64), fs.Field("cards", fs.Array(fs.String))])

@fs.on_demand_feature_view(
    sources=[request], features=[fs.Attribute("double", fs.Float64), fs.Attribute("count", fs.Int64)]
)
def doubled(request):
    amount = request["amount"]
    return {"double": None if amount is None else 2 * amount, "count": len(request["cards"] or [])}

fs.FeatureService("users:v1", features=[profile, doubled], description=EVIL)
"""
SERVICE = "/console/services/users%3Av1"
TAB, ENTER = "\ue004", "\ue007"
WIDTHS = (360, 768, 1280)


class Console(NamedTuple):
    """A server, the address of its console, and a browser."""

    server: Server
    url: str
    browser: Browser

    def open(self, path: str = "/") -> Browser:
        """Go to a page, with nothing remembered of earlier ones."""
        self.browser.screen(1280, 900)
        self.browser.open(self.url + "/console/icon.svg")
        self.browser.run("sessionStorage.clear()")
        self.browser.open(self.url + path)
        return self.browser


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "features.py").write_text(DEFINITIONS)
    (folder / "events.csv").write_text("user_id,at\n")
    url = f"local:{folder / 'store'}?sync=off"
    values = {f"f{number:02}": number for number in range(15)} | {"name": "<b>u1</b>"}
    apply_and_put(folder, url, {"profile": [Row(("u1",), values, 1)]})
    flags = ("--workers", "2", "--admin-port", "0")
    profile = tmp_path_factory.mktemp("browser") / "profile"
    with serving_features(folder, url, *flags) as server, browsing(profile) as browser:
        found = server.wait_for(r"admin pages on (http://\S+)\n")
        yield Console(server, found[1], browser)


@pytest.fixture
def console(running: Console) -> Iterator[Console]:
    running.browser.complaints()
    yield running
    # That a query was refused is no fault of the page's; nor that a browser asks for the icon of a picture.
    excused = ("/console/try - ", "/favicon.ico - ")
    assert [each for each in running.browser.complaints() if not any(path in each for path in excused)] == []


def test_figures_and_lines_appear_and_follow_the_load(console: Console) -> None:
    page = console.open()
    client = console.server.connect()
    page.wait_for("return document.querySelector('#pulse').textContent == '2 of 2 workers ready'")
    for _ in range(50):
        ask(client, "users:v1", {"user_id": "u1"}, requestContextMap={"amount": 1.0, "cards": []})
    ask(client, "users:v1", {})
    page.wait_for(
        "const rate = document.querySelector('[data-tile=rate] .value').textContent;"
        "return parseFloat(rate) > 0"
    )
    drawn = "'[data-chart=latency] .plot circle, [data-chart=latency] .plot path'"
    page.wait_for(f"return document.querySelectorAll({drawn}).length >= 3")
    assert "users:v1" in page.text("[data-chart=rate] .legend")
    assert page.text("[data-tile=p99] .value").endswith("ms")
    assert page.text("[data-tile=errors] .value").endswith("%")
    page.wait_for("return / (µs|ms)$/.test(document.querySelector('[data-of=took]').textContent)")
    label = page.run("return document.querySelector('[data-chart=rate] svg').getAttribute('aria-label')")
    assert label.startswith("Throughput: users:v1 ")
    # Another page goes on with what was seen.
    kept = "JSON.parse(sessionStorage['fastserve.console'])"
    first, latest = page.run(f"const {{ moments, last }} = {kept}; return [moments[0].at, last.now_s]")
    page.click("a[href$='users%3Av1']")
    page.wait_for(f"return location.pathname != '/' && {kept}.last.now_s > arguments[0]", latest)
    assert page.run(f"return {kept}.moments[0].at") == first
    page.wait_for("return /^[0-9.]+$/.test(document.querySelector('[data-figure=rate]').textContent)")


LATE = """
const real = window.fetch;
let late = 0;
window.fetch = async (...asked) => {
  const response = await real(...asked);
  const answer = await response.json();
  late += 1000;
  answer.server.lag[answer.server.lag.length - 1] += late;
  return { ok: true, json: async () => answer };
};
"""


def test_what_is_above_all_bounds_is_told_by_the_last_of_its_own(console: Console) -> None:
    page = console.open()
    page.run(LATE)
    page.wait_for("return document.querySelector('[data-tile=lag] .value').textContent == '> 1 s'")


def test_what_another_version_has_kept_is_left_alone(console: Console) -> None:
    page = console.open("/console/icon.svg")
    page.run("""sessionStorage['fastserve.console'] = '{"last": {"now_s": 1}, "moments": [{"at": 1}]}'""")
    page.open(console.url + "/")
    page.wait_for("return document.querySelector('#pulse').textContent == '2 of 2 workers ready'")


def test_a_query_is_typed_asked_and_answered_by_keyboard_alone(console: Console) -> None:
    page = console.open(SERVICE)
    page.run("document.querySelector('#key-user_id').focus()")
    page.press(*"u1", TAB, TAB, *"2.5", TAB, TAB, *'["a","b"]', TAB, TAB, ENTER)
    page.wait_for("return document.querySelector('.answered table')")
    rows = page.run(
        "return [...document.querySelectorAll('.answered tbody tr')]"
        ".map(row => [...row.cells].slice(0, 4).map(cell => cell.textContent))"
    )
    assert rows[0] == ["doubled.double", "5", "float64", "PRESENT"]
    assert rows[1] == ["doubled.count", "2", "int64", "PRESENT"]
    assert rows[-1] == ["profile.name", "<b>u1</b>", "string", "PRESENT"]
    assert len(rows) == 18
    assert "18 features" in page.text(".answered h3")


def test_the_command_to_copy_is_the_query_that_was_asked(console: Console) -> None:
    page = console.open(SERVICE)
    page.wait_for("return document.querySelector('#pulse').textContent")
    page.type("#key-user_id", "it's")
    page.type("#context-amount", "NaN")
    page.click("[data-null=context-cards]")
    command = page.text("[data-curl]")
    url, body = command.split(" \\\n  -d ")
    assert url == f"curl -s {console.server.url}/api/v1/feature-service/get-features"
    asked = orjson.loads(body.strip("'").replace("'\\''", "'"))["params"]
    assert asked["joinKeyMap"] == {"user_id": "it's"}
    assert asked["requestContextMap"] == {"amount": "NaN", "cards": None}
    page.click("[data-copy]")
    page.wait_for("return document.querySelector('[data-told]').textContent.startsWith('Copied')")
    page.click("[data-null=context-amount]")
    assert '"amount":null' in page.text("[data-curl]")
    page.click("button.first")
    page.wait_for("return document.querySelector('.answered table')")
    assert "MISSING_DATA" in page.text(".answered")


def test_what_is_wrong_is_said_where_it_was_asked(console: Console) -> None:
    page = console.open(SERVICE)
    page.type("#context-amount", "<b>much</b>")
    page.click("button.first")
    page.wait_for("return document.querySelector('.answered.bad')")
    assert page.text(".answered").startswith("400 Request context field `amount`: expected float64")


def test_no_description_runs_or_becomes_an_element(console: Console) -> None:
    for path in ("/", SERVICE, "/console/views/profile"):
        page = console.open(path)
        assert "evil" not in str(page.run("return document.title"))
        assert page.run("return document.querySelectorAll('img, main script').length") == 0
        assert "<script>document.title = 'evil'</script>" in page.text("main")


def test_rows_of_a_long_table_are_found_by_words(console: Console) -> None:
    page = console.open(SERVICE)
    page.type(".filter input", "profile int64 f0")
    shown = (
        "return [...document.querySelectorAll('#answer ~ .box tbody tr')].filter(row => !row.hidden).length"
    )
    assert page.run(shown) == 10
    assert page.text(".filter [role=status]") == "10 of 18 rows"


def test_the_catalogue_is_there_without_a_script(console: Console) -> None:
    console.browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page = console.open()
        assert "users:v1" in page.text("main")
        assert "need JavaScript" in page.text("main")
        page.click("a[href$='users%3Av1']")
        text = page.text("main")
        assert "profile.f14" in text
        assert "curl -s" in text
        assert "The form needs JavaScript" in text
    finally:
        console.browser.cdp("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("path", ["/", SERVICE, "/console/views/profile", "/console/views/doubled"])
def test_no_page_is_wider_than_its_screen(console: Console, path: str) -> None:
    page = console.open(path)
    for width in WIDTHS:
        page.screen(width, 800)
        wide = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
        assert page.run(wide) == 0, (path, width)


CONTRAST = """
const parts = text => text.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => {
  const linear = [r, g, b].map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const behind = element => {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (/^rgb\\(/.test(colour)) return parts(colour);
  }
  return [255, 255, 255];
};
const poor = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest('svg')) continue;
  const both = [light(parts(getComputedStyle(element).color)), light(behind(element))];
  const [above, below] = both.sort((a, b) => b - a);
  const ratio = (above + 0.05) / (below + 0.05);
  if (ratio < 4.5) poor.push(`${element.className} ${element.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
}
return poor;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(console: Console, *, dark: bool) -> None:
    page = console.browser
    for path in ("/", SERVICE):
        console.open(path)
        page.screen(1280, 900, dark=dark)
        page.wait_for("return document.querySelector('#pulse').textContent")
        assert page.run(CONTRAST) == []
    colour = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(13, 17, 23)") is dark


def test_every_control_is_reached_and_marked_by_the_tab_key(console: Console) -> None:
    page = console.open(SERVICE)
    seen = []
    for _ in range(8):
        page.press(TAB)
        seen.append(
            page.run(
                "const e = document.activeElement; const name = e.textContent.trim().slice(0, 15);"
                "return [name || e.id || e.dataset.null, getComputedStyle(e).outlineStyle]"
            )
        )
    names = [name for name, _ in seen]
    assert names[:5] == ["Skip to content", "fastserve", "Overview", "Services", "Views"]
    assert "key-user_id" in names
    assert {outline for _, outline in seen} == {"solid"}
