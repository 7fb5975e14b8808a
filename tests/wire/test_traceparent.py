from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire.traceparent import TraceParent, parse_traceparent

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
IDS = (int(TRACE, 16), int(SPAN, 16))


@pytest.mark.parametrize(
    "value, is_sampled",
    [
        (b"00-%b-%b-01" % (TRACE, SPAN), True),
        (b"00-%b-%b-00" % (TRACE, SPAN), False),
        (b"00-%b-%b-03" % (TRACE, SPAN), True),
        (b"00-%b-%b-fe" % (TRACE, SPAN), False),
        (b"cc-%b-%b-01-what the future brings" % (TRACE, SPAN), True),
        (b"cc-%b-%b-01" % (TRACE, SPAN), True),
    ],
)
def test_a_caller_s_trace_and_its_decision_are_taken_over(value: bytes, is_sampled: bool) -> None:
    assert parse_traceparent(value) == TraceParent(*IDS, is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"ff-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01-more" % (TRACE, SPAN),
        b"cc-%b-%b-01more" % (TRACE, SPAN),
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-1" % (TRACE, SPAN),
        b"00-%b-%b-01" % (TRACE.upper(), SPAN),
        b"00-%b-%b-01" % (TRACE[1:], SPAN),
        b"00-%b-%b-01,00-%b-%b-01" % (TRACE, SPAN, TRACE, SPAN),
        b"cc-%b-%b-01-more,cc-%b-%b-01-more" % (TRACE, SPAN, TRACE, SPAN),
        b" 00-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01\n" % (TRACE, SPAN),
    ],
)
def test_what_is_not_of_the_form_counts_as_not_there(value: bytes) -> None:
    assert parse_traceparent(value) is None


@given(st.binary(max_size=80))
def test_no_bytes_whatever_raise(value: bytes) -> None:
    parse_traceparent(value)
