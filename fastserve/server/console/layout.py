"""What all pages of the console have in common: head, bar, tables, facts, and how sizes are written.

Addresses are relative, so that the pages work behind a proxy that puts a path before them.

Invariants
1. A page fetches from its own origin only, and holds no script and no style of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fastserve.server.console.html import Child, Html, document, join, tag

KIB = 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """What a page says of the server, whatever it shows. ``assets`` changes with stylesheet and script."""

    workspace: str
    version: str
    assets: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; ``numbers`` stand at the right, ``code`` is set as code."""

    heading: str
    numbers: bool = False
    code: bool = False


Headings = Sequence[Column | str]
"""A heading alone is that of a column of text."""


def numbers(heading: str) -> Column:
    """Return a column of numbers."""
    return Column(heading, numbers=True)


def coded(heading: str) -> Column:
    """Return a column of names as they stand in code."""
    return Column(heading, code=True)


def page(frame: Frame, title: str, up: str, *content: Child) -> bytes:
    """Return a page; ``up`` leads from its address to the listener's root: ``./`` or ``../../``."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · {frame.workspace} · fastserve"),
        tag("link", rel="icon", href=f"{up}console/icon.svg?v={frame.assets}", type="image/svg+xml"),
        tag("link", rel="stylesheet", href=f"{up}console/console.css?v={frame.assets}"),
        tag("script", src=f"{up}console/console.js?v={frame.assets}", defer=True),
    )
    body = tag(
        "body",
        tag("a", "Skip to content", class_="skip", href="#content"),
        _bar(frame, up),
        tag("main", *content, id="content"),
        _foot(frame, up),
    )
    return document(tag("html", head, body, lang="en", data_up=up))


def _bar(frame: Frame, up: str) -> Html:
    links = [("Overview", up), ("Services", f"{up}#services"), ("Views", f"{up}#views")]
    return tag(
        "header",
        tag(
            "div",
            tag("a", tag("span", class_="mark", aria_hidden="true"), "fastserve", class_="brand", href=up),
            tag("span", frame.workspace, class_="workspace", title="Workspace"),
            tag("nav", *(tag("a", text, href=to) for text, to in links), aria_label="Console"),
            tag("p", "", class_="pulse", id="pulse", role="status"),
            class_="wrap",
        ),
        class_="bar",
    )


def _foot(frame: Frame, up: str) -> Html:
    return tag(
        "footer",
        tag(
            "div",
            tag("span", f"fastserve {frame.version}"),
            tag("a", "OpenAPI", href=f"{up}openapi.json"),
            tag("a", "Metrics", href=f"{up}metrics"),
            class_="wrap",
        ),
    )


def section(identity: str, heading: str, *content: Child, about: str = "") -> Html:
    """Return a section under a heading, to be linked to."""
    told = tag("p", about, class_="about") if about else None
    return tag(
        "section", tag("h2", heading, id=identity), told, *content, aria_labelledby=identity, class_="block"
    )


def table(
    caption: str, headings: Headings, rows: Iterable[Sequence[Child]], *, filtered: bool = False
) -> Html:
    """Return a table in a box of its own that scrolls where the screen is narrow.

    With ``filtered`` the script may put a field above it by which rows are found.
    """
    columns = [Column(each) if isinstance(each, str) else each for each in headings]
    head = tag("tr", *(tag("th", each.heading, scope="col", class_=_class(each)) for each in columns))
    body = join(tag("tr", *map(_cell, columns, row)) for row in rows)
    inner = tag("table", tag("caption", caption, class_="unseen"), tag("thead", head), tag("tbody", body))
    return tag(
        "div", inner, class_="box", tabindex=0, role="region", aria_label=caption, data_filter=filtered
    )


def _class(column: Column) -> str | None:
    return " ".join([name for name in ("num" * column.numbers, "code" * column.code) if name]) or None


def _cell(column: Column, child: Child) -> Html:
    return tag("td", child, class_=_class(column))


def facts(pairs: Mapping[str, Child]) -> Html:
    """Return names and what goes with them; what is None or empty is left out."""
    listed = [
        tag("div", tag("dt", name), tag("dd", value))
        for name, value in pairs.items()
        if value not in (None, "")
    ]
    return tag("dl", *listed, class_="facts")


def figures(pairs: Sequence[tuple[str, str, str]]) -> Html:
    """Return figures in large type: what it is, the figure, and a remark."""
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", name),
                tag("dd", tag("span", figure, class_="figure"), tag("span", remark, class_="remark")),
            )
            for name, figure, remark in pairs
        ),
        class_="figures",
    )


def code(text: str) -> Html:
    """Return a name or a piece of code."""
    return tag("code", text)


def chips(texts: Iterable[str]) -> Html:
    """Return names beside each other."""
    return tag("span", *(tag("span", text, class_="chip") for text in texts), class_="chips")


def tags_of(tags: Mapping[str, str]) -> Html | None:
    """Return tags as chips."""
    return chips(f"{key}: {value}" for key, value in tags.items()) if tags else None


def link(to: str, text: str) -> Html:
    """Return a link."""
    return tag("a", text, href=to)


def service_address(name: str) -> str:
    """Return the address of a service's page, from the root."""
    return f"console/services/{quote(name, safe='')}"


def view_address(name: str) -> str:
    """Return the address of a view's page, from the root."""
    return f"console/views/{quote(name, safe='')}"


def size_text(size_bytes: int) -> str:
    """Return a size as people read it."""
    if size_bytes < KIB:
        return f"{size_bytes:,} B"
    return f"{size_bytes / KIB:,.1f} KiB" if size_bytes < KIB * KIB else f"{size_bytes / KIB / KIB:,.1f} MiB"


def price_text(price_usd: float) -> str:
    """Return a price: two digits behind the point, more where it is small."""
    is_whole = round(price_usd, 2) == price_usd
    return f"${price_usd:,.2f}" if is_whole or price_usd >= 1 else f"${price_usd:,.3g}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
