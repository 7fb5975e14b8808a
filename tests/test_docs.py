"""The pages under `docs/` say what the code does: parameters, functions, windows, links.

What can be compared with the code is compared here, since nobody reads a page against the code twice.
"""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from pathlib import Path

import pytest

import fastserve
from docs.make_reference import reference_markdown
from fastserve.plan.explain_windows import duration_text
from fastserve.sdk.functions import FUNCTIONS
from fastserve.sdk.types import SCALARS
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS, Window, default_hop_ns

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*/*.md"), ROOT / "perf/README.md"]
)
SHOWN_DEFAULTS = {timedelta(days=2): "2 days", timedelta(0): "`timedelta(0)`"}
DOCUMENTED_IN_TABLES = [
    "Aggregate",
    "AggregateFunction",
    "Attribute",
    "AttributesFormat",
    "Entity",
    "ExternalSource",
    "FeastFormat",
    "FeatureService",
    "FeatureView",
    "Field",
    "FileSource",
    "PushSource",
    "TimeWindow",
    "TimeWindowSeries",
]


def section(name: str) -> str:
    """Return what stands under a class's heading, up to the next heading."""
    text = (DOCS / "definitions.md").read_text()
    found = re.search(rf"^##+ {name}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/definitions.md has no section {name}"
    return found[1]


def parameter_rows(text: str) -> dict[str, str]:
    """Return the defaults by parameter, as the table of a section has them."""
    rows: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*?) ?\|", text, re.MULTILINE):
        listed = names.replace("`", "").split(", ")
        given = defaults.split(", ") if len(listed) > 1 else [defaults]
        rows.update(zip(listed, given, strict=True))
    return rows


@pytest.mark.parametrize("name", DOCUMENTED_IN_TABLES)
def test_every_parameter_of_a_definition_is_documented_with_its_default(name: str) -> None:
    signature = inspect.signature(getattr(fastserve, name))
    expected = {}
    for parameter in signature.parameters.values():
        default = parameter.default
        if default is inspect.Parameter.empty:
            expected[parameter.name] = ""
        elif isinstance(default, timedelta):
            expected[parameter.name] = SHOWN_DEFAULTS[default]
        else:
            expected[parameter.name] = f"`{default!r}`".replace("'", '"')
    assert parameter_rows(section(name)) == expected


def test_every_public_name_is_documented() -> None:
    text = (DOCS / "definitions.md").read_text()
    missing = [
        name
        for name in fastserve.__all__
        if name not in {"__version__", "DataType"}
        and not re.search(rf"(`|^##+ ){name}\b", text, re.MULTILINE)
    ]
    assert missing == []


def test_every_function_has_a_column_with_its_input_types() -> None:
    lines = (DOCS / "aggregations.md").read_text().splitlines()
    heads = [line for line in lines if line.startswith("| | `")]
    takes = [line for line in lines if line.startswith("| input types")]
    documented: dict[str, str] = {}
    for head, types in zip(heads, takes, strict=True):
        for names, accepted in zip(cells(head)[1:], cells(types)[1:], strict=True):
            documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), accepted)
    expected = {
        name: "any" if rule.accepts is None else ", ".join(map(repr, rule.accepts))
        for name, rule in FUNCTIONS.items()
    }
    assert documented == expected


def test_the_table_of_windows_is_what_the_tiles_do() -> None:
    lengths = {"1h": HOUR_NS, "6h": 6 * HOUR_NS} | {f"{n}d": n * DAY_NS for n in (1, 7, 28, 356)}
    intervals = {"1m": MINUTE_NS, "5m": 5 * MINUTE_NS, "1h": HOUR_NS}
    rows = re.findall(
        r"^\| (\d+[hd]) \| (\d+[mh]) \| (.*) \|$", (DOCS / "windows.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 8
    for length, interval, rest in rows:
        hop_ns = default_hop_ns(lengths[length], intervals[interval])
        window = Window(lengths[length], hop_ns, intervals[interval], 2 * DAY_NS)
        core = "1" if window.has_core else "–"
        made = [duration_text(hop_ns), core, str(window.tails), str(window.slots), str(8 * window.slots)]
        assert rest.split(" | ") == made, length


def test_the_table_of_types_has_all_scalars() -> None:
    text = section("Types")
    assert [repr(dtype) for dtype in SCALARS if f"`{dtype!r}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def anchors(page: Path) -> set[str]:
    """Return what a link may have behind its `#`, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_lead_to_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", text)
    broken = [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in anchors(page.parent / target if target else page)
    ]
    assert broken == []


def cells(line: str) -> list[str]:
    """Return the cells of a table's line."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_reference_is_made_from_the_docstrings_of_today() -> None:
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference_markdown(), "run `make docs`"


def test_every_heading_that_the_reference_links_to_is_there() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= headings
    assert {name.lower() for name in fastserve.__all__} - headings <= {
        "__version__",
        *(repr(dtype).lower() for dtype in SCALARS),
    }
