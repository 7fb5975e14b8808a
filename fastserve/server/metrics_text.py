"""Prometheus's text format, version 0.0.4: samples in, text out.

It knows no metric. https://prometheus.io/docs/instrumenting/exposition_formats/ is the grammar.

Invariants
1. What comes out is well-formed whatever names of services and views are: label values are escaped.
2. A family stands in one piece, its help and kind first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastserve.server.metrics_table import Kind

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; ``suffix`` is what a histogram's samples have behind the family's name."""

    labels: Labels
    value: float
    suffix: str = ""


def family(name: str, kind: Kind, help_text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """Give the lines of one metric; none where it has no samples."""
    is_first = True
    for sample in samples:
        if is_first:
            is_first = False
            help_line = help_text.replace("\\", "\\\\").replace("\n", "\\n")
            yield f"# HELP {name} {help_line}"
            yield f"# TYPE {name} {kind}"
        yield f"{name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}"


def histogram(labels: Labels, counts: Sequence[int], bounds_s: Sequence[float], total: float) -> list[Sample]:
    """Return a histogram's samples; ``counts`` are of each bucket alone, the last above all bounds."""
    samples = []
    count = 0
    for bound, in_bucket in zip((*[f"{bound:g}" for bound in bounds_s], "+Inf"), counts, strict=True):
        count += in_bucket
        samples.append(Sample({**labels, "le": bound}, count, "_bucket"))
    return [*samples, Sample(labels, total, "_sum"), Sample(labels, count, "_count")]


def _labels(labels: Labels) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
