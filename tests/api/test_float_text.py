"""The two ways to print floats give the same bytes, and those read back are the same floats."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.api.float_text import by_orjson
from tests.support.guarded import guarded_memory

native = pytest.importorskip("fastserve.api._float_text", reason="no C compiler was there")

Floats = npt.NDArray[np.float64]

Both = Callable[[Floats], bytes]

BLOCK = 32
"""So many values are printed together."""


OLDER_PROCESSORS = {"without AVX-512": "-DWITHOUT_AVX512", "for any processor": "-U__SSE2__"}
"""Flags for what others run: digits made sixteen at a time, or in whole words."""


def compiled_with(flag: str, folder: Path) -> Any:
    """Return the loop compiled with one flag more."""
    source = Path(__file__).parents[2] / "fastserve/api/_float_text.c"
    library = folder / "_float_text.so"
    command = shlex.split(sysconfig.get_config_var("LDSHARED"))
    command += ["-O3", "-fPIC", flag, f"-I{sysconfig.get_path('include')}", str(source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    loader = ExtensionFileLoader("_float_text", str(library))
    spec = importlib.util.spec_from_file_location("_float_text", library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["as it is here", *OLDER_PROCESSORS])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Return what prints a line, after comparing the two ways."""
    flag = OLDER_PROCESSORS.get(request.param)
    loop = compiled_with(flag, tmp_path_factory.mktemp("loop")) if flag else native

    def compare(values: Floats) -> bytes:
        text: bytes = loop.float_array(values)
        expected = by_orjson(values)
        if text != expected:
            pairs = zip(text[1:-1].split(b","), expected[1:-1].split(b","), strict=False)
            raise AssertionError(next(pair for pair in pairs if pair[0] != pair[1]))
        return text

    return compare


@given(st.lists(st.floats(width=64), max_size=3 * BLOCK))
def test_any_floats_are_printed_alike(both: Both, values: list[float]) -> None:
    both(np.array(values, np.float64))


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5_000])
def test_lines_of_any_length_are_printed_alike(both: Both, count: int) -> None:
    both(np.random.default_rng(count).normal(size=count))


def test_a_million_floats_of_any_bits_are_printed_alike_and_read_back(both: Both) -> None:
    bits = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 1_000_000)
    values = bits.view(np.float64)
    values = values[np.isfinite(values)]
    assert np.array_equal(np.array(orjson.loads(both(values))).view("<i8"), values.view("<i8"))


def test_a_million_floats_from_a_millionth_to_ten_to_17_are_printed_alike(both: Both) -> None:
    """Most of them have no exponent: processors with AVX-512 print those eight at a time."""
    random = np.random.default_rng(5)
    exponents, fractions = random.integers(1_003, 1_079, 1_000_000), random.integers(0, 2**52, 1_000_000)
    both((exponents << 52 | fractions).view(np.float64) * random.choice([-1.0, 1.0], 1_000_000))


def test_floats_between_two_decimals_are_printed_alike(both: Both) -> None:
    random = np.random.default_rng(8)
    both(np.concatenate([random.integers(2**52, 2**53, 10_000) / 2.0**shift for shift in range(-4, 30)]))


def test_odd_ones_at_any_places_among_eight_are_printed_alike(both: Both) -> None:
    is_odd = np.unpackbits(np.arange(256, dtype=np.uint8)).astype(bool)
    both(np.where(is_odd, 1e300, np.random.default_rng(9).normal(size=len(is_odd))))


def test_counts_are_printed_alike(both: Both) -> None:
    both(np.arange(-10_000.0, 10_000.0))


@pytest.mark.parametrize("odd", [0.0, -0.0, 1.0, 1e300, np.nan, 5e-324])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_odd_ones_among_plain_ones_are_printed_alike(both: Both, odd: float, share: float) -> None:
    random = np.random.default_rng(6)
    both(np.where(random.random(10_000) < share, odd, random.normal(size=10_000)))


@pytest.mark.parametrize(
    "name", ["integers", "cents", "near powers of ten", "powers of two", "subnormal", "few digits", "halfway"]
)
def test_floats_at_edges_are_printed_alike(both: Both, name: str) -> None:
    random = np.random.default_rng(2)
    exponents = np.arange(-323, 309)
    powers = np.array([float(f"1e{exponent}") for exponent in exponents])
    twos = np.ldexp(1.0, np.arange(-1074, 1024))
    edges: dict[str, Floats] = {
        "integers": random.integers(-(2**54), 2**54, 100_000).astype(np.float64),
        "cents": np.round(random.uniform(-1e6, 1e6, 100_000), 2),
        "near powers of ten": np.concatenate([powers, np.nextafter(powers, 0), np.nextafter(powers, np.inf)]),
        "powers of two": np.concatenate([twos, np.nextafter(twos, 0), np.nextafter(twos, np.inf)]),
        "subnormal": random.integers(1, 2**52, 100_000).view(np.float64),
        "few digits": random.integers(1, 100, 100_000) * 10.0 ** random.integers(-300, 300, 100_000),
        "halfway": random.integers(2**53, 2**63, 100_000).astype(np.float64),
    }
    both(edges[name])
    both(-edges[name])


def test_every_exponent_is_printed_alike(both: Both) -> None:
    """The table behind the digits has an entry for each."""
    random = np.random.default_rng(3)
    fractions = random.integers(0, 2**52, (2_047, 50))
    both((np.arange(2_047)[:, None] << 52 | fractions).ravel().view(np.float64))


def test_what_is_no_number_is_null_and_zeros_keep_their_sign(both: Both) -> None:
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0])
    assert both(values) == b"[null,null,null,null,0.0,-0.0]"


def test_part_of_a_line_is_printed(both: Both) -> None:
    assert both(np.arange(9.0)[2:5]) == b"[2.0,3.0,4.0]"


def test_nothing_behind_a_line_is_read(both: Both) -> None:
    memory = guarded_memory(8 * 3 * BLOCK)
    values = np.frombuffer(memory, np.float64)
    values[:] = np.random.default_rng(4).normal(size=len(values))
    for count in range(len(values)):
        both(values[count:])


def test_a_line_that_is_not_aligned_is_printed_alike(both: Both) -> None:
    values = np.random.default_rng(7).normal(size=3 * BLOCK)
    apart = np.frombuffer(b"." + values.tobytes(), np.uint8)[1:].view(np.float64)
    both(apart)


OVERRUN = """
from array import array
from fastserve.api._float_text import float_array

LONGEST = -1.2345678901234567e-308
for before in range(100):
    for last in (LONGEST, -0.000012345678901234567, -1000000000000000.0, 1.0, float("nan")):
        float_array(array("d", [LONGEST] * before + [last]))
"""


def test_nothing_is_written_behind_the_memory_of_a_text() -> None:
    # What is written there kills a process whose allocator looks.
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    subprocess.run([sys.executable, "-c", OVERRUN], env=environment, check=True)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros(3, np.float32), "expected a line of float64, got 1 dimensions of 'f'"),
        (np.zeros(3, np.int64), "expected a line of float64, got 1 dimensions of 'l'"),
        (np.zeros((2, 2)), "expected a line of float64, got 2 dimensions of 'd'"),
        (np.zeros(3, ">f8"), "expected a line of float64, got 1 dimensions of '>d'"),
        (b"12345678", "expected a line of float64, got 1 dimensions of 'B'"),
    ],
)
def test_what_is_no_line_of_float64_is_refused(values: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        native.float_array(values)


def test_what_lies_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="not C-contiguous"):
        native.float_array(np.zeros(8)[::2])
