"""HTML put together so that what somebody else wrote can't become markup.

Knows nothing of pages. A text is escaped when it becomes part of an element, always and once: only what was
made here is an `Html`, and only an `Html` stands as it is.

Invariants
1. No text and no attribute's value, whatever it holds, ends its place: it is shown as it was written.
2. There is no way to hand over markup as text, and no attribute that holds a script or a style.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fastserve.errors import InvariantError, shown

VOID = frozenset({"br", "input", "link", "meta"})
DOCTYPE = "<!doctype html>"


class Html(str):
    """Markup that was made by `tag` or `join`."""

    __slots__ = ()


Child = Html | str | int | None
Attribute = str | int | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Return an element; `_` in an attribute's name is `-`, and left out at its end (``class_``, ``for_``).

    A child that is None, and an attribute that is None or False, are left out; True has no value.

    Raises:
        InvariantError: an attribute that would hold a script or a style.
    """
    text = "".join([f" {_name(key)}{_value(value)}" for key, value in attributes.items() if _counts(value)])
    if name in VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Return children one after the other, texts escaped."""
    return Html("".join([_child(child) for child in children if child is not None]))


def document(root: Html) -> bytes:
    """Return the bytes of a page; a lone surrogate of somebody's text is shown as what it isn't."""
    return f"{DOCTYPE}{root}".encode("utf-8", "replace")


def _child(child: Html | str | int) -> str:
    if isinstance(child, Html):
        return child
    return escape(child, quote=False) if isinstance(child, str) else f"{child:,}"


def _counts(value: Attribute) -> bool:
    return value is not None and value is not False


def _name(key: str) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if name == "style" or name.startswith("on"):
        raise InvariantError(f"expected an attribute without a script or a style, got {shown(name)}")
    return name


def _value(value: Attribute) -> str:
    return "" if value is True else f'="{escape(str(value))}"'
