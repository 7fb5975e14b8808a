"""Makes `docs/reference.md` out of the docstrings and signatures of `fastserve`'s public names.

    python -m docs.make_reference > docs/reference.md

What a parameter means stands in the docstring's ``Args``, and nowhere else.

Invariants
1. Every public name is in one group, or the page can't be made; so is every parameter in its ``Args``.
2. The page is a function of the package.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import fastserve

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Types": ("Field", "Array", "Struct", "Map", "DataType"),
    "Entities": ("Entity",),
    "Sources": ("FileSource", "PushSource", "RequestSource", "ExternalSource"),
    "Feature views": ("FeatureView", "FeatureViewReference", "AttributesFormat", "FeastFormat"),
    "Features": ("Attribute", "Aggregate", "Calculation"),
    "Windows": ("TimeWindow", "LifetimeWindow", "TimeWindowSeries"),
    "Functions": (
        "AggregateFunction",
        "last",
        "first",
        "last_distinct",
        "first_distinct",
        "approx_count_distinct",
        "approx_percentile",
    ),
    "On-demand feature views": (
        "on_demand_feature_view",
        "OnDemandFeatureView",
        "OnDemandReference",
        "RequestContext",
    ),
    "Feature services": ("FeatureService",),
    "Errors": ("FastserveError", "DefinitionError", "DefinitionErrors"),
}
SCALARS = ("Int64", "Float64", "Float32", "String", "Bool", "Timestamp")
UNLISTED = {"__version__", *SCALARS}
MADE_BY_OTHERS = {"FeatureViewReference", "OnDemandReference", "RequestContext", "DataType"}
"""Nobody makes these by hand: their constructors are not for authors."""

OURS = {"valid", "to_api"}
"""Members that are for fastserve's own use."""

_SECTION = re.compile(r"^(Args|Raises|Returns):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+): (.*)$")
_NAME = re.compile(r"(?<!`)`([A-Za-z_.]+)`(?!`)")

HEAD = """# Reference

Every public name of `import fastserve`, with its parameters. [Definitions](definitions.md) introduces them in
the order in which one needs them, and says what holds for all.

This page is made from the docstrings by `make docs`.
"""


def main() -> None:
    """Print the page."""
    sys.stdout.write(reference_markdown())


def reference_markdown() -> str:
    """Return the page.

    Raises:
        ValueError: a public name without a group, or a parameter that its docstring doesn't explain.
    """
    grouped = [name for names in GROUPS.values() for name in names]
    missing = set(fastserve.__all__) - UNLISTED - set(grouped)
    if missing or len(set(grouped)) < len(grouped):
        raise ValueError(f"expected each public name in one group, got {sorted(missing)} in none")
    parts = [HEAD, _contents()]
    for group, names in GROUPS.items():
        parts.append(f"## {group}\n")
        if group == "Types":
            parts.append(f"Scalars are ready made: {', '.join(f'`{name}`' for name in SCALARS)}.\n")
        parts += [_described(name, getattr(fastserve, name)) for name in names]
    return "\n".join(parts)


def _contents() -> str:
    lines = [f"- {group}: {', '.join(_link(name) for name in names)}" for group, names in GROUPS.items()]
    return "\n".join(lines) + "\n"


def _link(name: str) -> str:
    return f"[`{name}`](#{name.lower()})"


def _described(name: str, thing: Any) -> str:
    """Return the section of one name."""
    text, sections = _docstring(thing)
    lines = [f"### {name}", ""]
    if name not in MADE_BY_OTHERS and not _is_error(thing):
        lines += ["```text", _signature(name, thing), "```", ""]
    lines += [_prose(text), ""]
    if name not in MADE_BY_OTHERS and not _is_error(thing):
        lines += _parameters(name, thing, sections.get("Args", ""))
    if "Raises" in sections:
        lines += [f"Raises {_raises(sections['Raises'])}", ""]
    if inspect.isclass(thing):
        lines += _members(thing)
    return "\n".join(lines)


def _is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


def _docstring(thing: Any) -> tuple[str, dict[str, str]]:
    """Return what a docstring says, and its sections by name."""
    text, *rest = _SECTION.split(inspect.getdoc(thing) or "")
    return text.strip(), dict(zip(rest[::2], rest[1::2], strict=True))


def _signature(name: str, thing: Any) -> str:
    parameters = [str(each) for each in _own_parameters(thing)]
    if not parameters:
        return f"{name}()"
    inner = "".join(f"    {_tidied(each)},\n" for each in parameters)
    return f"{name}(\n{inner})"


def _tidied(parameter: str) -> str:
    """Return a parameter as an author would write it."""
    text = re.sub(r"datetime\.timedelta\(days=(\d+)\)", r"timedelta(days=\1)", parameter)
    text = re.sub(r"datetime\.timedelta\(0\)", "timedelta(0)", text)
    return re.sub(r": '(.*?)'(?= =|$)", r": \1", text)


def _own_parameters(thing: Any) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(thing).parameters.values() if each.name != "self"]


def _parameters(name: str, thing: Any, explained: str) -> list[str]:
    entries = dict(_entries(explained))
    parameters = _own_parameters(thing)
    wanted = [each.name for each in parameters]
    if sorted(entries) != sorted(wanted):
        raise ValueError(f"{name}: expected Args for {wanted}, got {list(entries)}")
    if not parameters:
        return []
    rows = [
        f"| `{each.name}` | {_default(each.default)} | {_prose(entries[each.name])} |" for each in parameters
    ]
    return ["| parameter | default | |", "|---|---|---|", *rows, ""]


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """Give names and texts of an ``Args`` section; an entry's text may go on in deeper lines."""
    name, text = "", ""
    for line in section.strip("\n").splitlines():
        found = _ENTRY.match(line)
        if found is not None:
            if name:
                yield name, text
            name, text = found[1], found[2]
        elif line.strip():
            text = f"{text} {line.strip()}"
    if name:
        yield name, text


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return ""
    if isinstance(value, timedelta):
        return f"`timedelta(days={value.days})`" if value else "`timedelta(0)`"
    return f"`{value!r}`".replace("'", '"')


def _prose(text: str) -> str:
    """Return a docstring's text as Markdown: names of ours lead to their sections."""
    linked = _NAME.sub(lambda found: _link(found[1]) if found[1] in _PUBLIC else f"`{found[1]}`", text)
    return linked.replace("``", "`").replace("|", "\\|")


_PUBLIC = {name for names in GROUPS.values() for name in names}


def _raises(section: str) -> str:
    entries = [_prose(f"`{name}`: {text}") for name, text in _entries(section)]
    return " ".join(entries)


def _members(cls: type) -> list[str]:
    """Return the table of what an object of the class can be asked."""
    rows = []
    for name, member in vars(cls).items():
        text = _first_paragraph(member)
        if name in OURS or (name.startswith("_") and name != "__getitem__"):
            continue
        if isinstance(member, property) and text:
            rows.append(f"| `.{name}` | {text} |")
        elif inspect.isfunction(member) and text:
            rows.append(f"| {_call(name, member)} | {text} |")
    return ["| of an object | |", "|---|---|", *rows, ""] if rows else []


def _call(name: str, member: Any) -> str:
    arguments = ", ".join(each.name for each in _own_parameters(member))
    return f"`[{arguments}]`" if name == "__getitem__" else f"`.{name}({arguments})`"


def _first_paragraph(member: Any) -> str:
    text = _docstring(member)[0] if isinstance(member, property) or inspect.isfunction(member) else ""
    return _prose(" ".join(text.split("\n\n")[0].split()))


if __name__ == "__main__":
    main()
