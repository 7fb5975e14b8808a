"""Reads Prometheus's text format, version 0.0.4, as strictly as its grammar is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([-+0-9.eInfNa]+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric: its kind, and its samples by name and labels."""

    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def read_metrics(text: str) -> dict[str, Family]:
    """Return the families of a scrape; fail on whatever isn't well-formed."""
    families: dict[str, Family] = {}
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    name = ""
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            name, help_text = line[7:].split(" ", 1)
            assert re.fullmatch(NAME, name)
            assert name not in families
            kind = lines[number + 1].removeprefix(f"# TYPE {name} ")
            families[name] = Family(kind, help_text)
        elif not line.startswith("# TYPE "):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            family = families[name]
            assert match[1].removeprefix(name) in SUFFIXES[family.kind], line
            labels = tuple((found[1], found[2]) for found in re.finditer(LABEL, match[2] or ""))
            assert (match[1], labels) not in family.samples, line
            family.samples[match[1], labels] = float(match[7])
    for family_name, family in families.items():
        if family.kind == "histogram":
            check_histogram(family_name, family)
    return families


def check_histogram(name: str, family: Family) -> None:
    """Fail unless buckets only grow, end at infinity and agree with the count."""
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample.endswith("_bucket"):
            bound = float(dict(labels)["le"])
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault(rest, []).append((bound, value))
    for labels, buckets in series.items():
        assert buckets == sorted(buckets), (name, labels)
        assert [count for _, count in buckets] == sorted(count for _, count in buckets), (name, labels)
        assert buckets[-1][0] == float("inf")
        assert buckets[-1][1] == family.samples[f"{name}_count", labels]
        assert (f"{name}_sum", labels) in family.samples


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels; ``name`` may be a histogram's sample."""
    family = next(
        family for base, family in families.items() if name.startswith(base) and _is_of(name, base, family)
    )
    return sum(
        number
        for (sample, own), number in family.samples.items()
        if sample == name and labels.items() <= dict(own).items()
    )


def _is_of(name: str, base: str, family: Family) -> bool:
    return name.removeprefix(base) in SUFFIXES[family.kind]
