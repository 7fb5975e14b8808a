"""What somebody else wrote stays text, wherever it stands."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import InvariantError
from fastserve.server.console.html import Html, document, join, tag


class Seen(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def seen(html: str) -> Seen:
    parser = Seen()
    parser.feed(html)
    parser.close()
    return parser


NASTY = st.text(alphabet=st.sampled_from("<>&\"'/=! -abscriptonerror;#x0\n`{}"), max_size=40)


@given(text=NASTY, value=NASTY)
def test_no_text_and_no_value_ends_its_place(text: str, value: str) -> None:
    made = seen(tag("p", text, tag("b", text), title=value, data_x=value))
    assert made.elements == [("p", {"title": value, "data-x": value}), ("b", {})]
    assert "".join(made.texts) == text * 2


def test_only_what_was_made_here_stands_as_it_is() -> None:
    inner = tag("b", "<i>")
    assert tag("p", inner, "<i>") == "<p><b>&lt;i&gt;</b>&lt;i&gt;</p>"
    assert isinstance(join([inner, "a & b"]), Html)
    assert tag("p", str(inner)) == "<p>&lt;b&gt;&amp;lt;i&amp;gt;&lt;/b&gt;</p>"  # a copy as text is text


def test_numbers_are_grouped_and_nothing_is_left_out_by_accident() -> None:
    assert tag("td", 12345, None, 0) == "<td>12,3450</td>"
    assert tag("input", type="text", disabled=True, hidden=False, value=None, data_n=0) == (
        '<input type="text" disabled data-n="0">'
    )
    assert tag("label", "x", for_="a", class_="b") == '<label for="a" class="b">x</label>'


@pytest.mark.parametrize("attribute", ["style", "onclick", "on_error"])
def test_there_is_no_attribute_that_holds_a_script_or_a_style(attribute: str) -> None:
    with pytest.raises(InvariantError, match="without a script or a style"):
        tag("p", **{attribute: "x"})


def test_text_that_has_no_utf_8_is_shown_as_what_it_isn_t() -> None:
    assert document(tag("p", "a\ud800")) == b"<!doctype html><p>a?</p>"
