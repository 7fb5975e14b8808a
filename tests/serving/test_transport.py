from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.sdk.types import Float64, String
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.tiles.layout import make_layout
from fastserve.tiles.rows import encode_row

LAYOUT = make_layout([("a", Float64), ("b", String)])
ROWS = st.lists(st.binary(max_size=9).map(lambda raw: raw + bytes(-len(raw) % 3)), max_size=5)
BOTH = pytest.mark.parametrize("transport", [BASE64_ROWS, RAW_ROWS], ids=["text", "bytes"])


@BOTH
@given(rows=ROWS)
def test_joined_rows_are_the_rows_one_after_the_other(transport: RowTransport, rows: list[bytes]) -> None:
    assert transport.join([transport.wrap(row) for row in rows]) == b"".join(rows)
    assert [transport.unwrap(transport.wrap(row)) for row in rows] == rows


@BOTH
def test_the_fixed_part_is_cut_off_as_it_comes(transport: RowTransport) -> None:
    row = encode_row(LAYOUT, {"a": 1.5, "b": b'"text"'}, 7)
    length = transport.fixed_length(LAYOUT)
    wrapped = transport.wrap(row)
    assert transport.unwrap(wrapped[:length]) == row[: LAYOUT.fixed_bytes]
    assert transport.unwrap(wrapped[length:]) == row[LAYOUT.fixed_bytes :]
    assert len(wrapped) * transport.bytes_per_unit == len(row)


@BOTH
def test_an_absent_row_can_t_be_joined(transport: RowTransport) -> None:
    with pytest.raises(TypeError):
        transport.join([transport.wrap(b"abc"), None])


@pytest.mark.parametrize(
    "text", ["AAA", "A===", "AAAA=", "AA==AAAA", "AA A", "AA\nAA", "!!!!", "ÄÄÄÄ", "A-_A"]
)
def test_text_that_is_not_base64_is_an_error(text: str) -> None:
    for function in (BASE64_ROWS.unwrap, lambda row: BASE64_ROWS.join([row])):
        with pytest.raises(ValueError, match=r"."):
            function(text)
