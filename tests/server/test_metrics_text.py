"""The text format: what a strict reader makes of it."""

from __future__ import annotations

from fastserve.server.metrics_table import Kind
from fastserve.server.metrics_text import Sample, family, histogram
from tests.support.prometheus_text import read_metrics, value


def text_of(name: str, kind: Kind, help_text: str, samples: list[Sample]) -> str:
    return "".join(f"{line}\n" for line in family(name, kind, help_text, samples))


def test_a_family_is_read_back_as_it_was() -> None:
    text = text_of("a_total", Kind.COUNTER, "Two\nlines \\ here.", [Sample({}, 3), Sample({"b": "c"}, 0.5)])
    assert text == (
        '# HELP a_total Two\\nlines \\\\ here.\n# TYPE a_total counter\na_total 3\na_total{b="c"} 0.5\n'
    )
    assert value(read_metrics(text), "a_total", b="c") == 0.5


def test_names_of_any_sort_are_escaped() -> None:
    name = 'a"b\\c\nd{}=,'
    text = text_of("x", Kind.GAUGE, "X.", [Sample({"service": name}, 1)])
    ((_, labels),) = read_metrics(text)["x"].samples
    assert labels == (("service", 'a\\"b\\\\c\\nd{}=,'),)


def test_a_histogram_is_cumulated_and_ends_at_infinity() -> None:
    text = text_of("h", Kind.HISTOGRAM, "H.", histogram({"s": "t"}, [1, 0, 2], [0.1, 1], 4.5))
    assert text.splitlines()[2:] == [
        'h_bucket{s="t",le="0.1"} 1',
        'h_bucket{s="t",le="1"} 1',
        'h_bucket{s="t",le="+Inf"} 3',
        'h_sum{s="t"} 4.5',
        'h_count{s="t"} 3',
    ]
    read_metrics(text)


def test_large_counts_keep_all_their_digits() -> None:
    assert text_of("n", Kind.GAUGE, "N.", [Sample({}, 2**52 + 1)]).endswith(f"n {2**52 + 1}\n")


def test_a_family_without_samples_is_left_out() -> None:
    assert text_of("n", Kind.GAUGE, "N.", []) == ""
