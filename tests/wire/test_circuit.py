"""A circuit opens for a store that is gone, and closes when probes say that it is back."""

from __future__ import annotations

from fastserve.wire.circuit import FAILURES, PAUSE_MAX_S, PAUSE_S, PROBES, STREAK_S, Circuit

NEVER_LESS = 1.0 - 1e-9


def new_circuit() -> Circuit:
    return Circuit(lambda: NEVER_LESS)


def opened(at_s: float = 0.0) -> Circuit:
    """Return a circuit that opens at ``at_s``."""
    circuit = new_circuit()
    for number in range(FAILURES):
        circuit.on_failure(0, at_s - 1.01 * STREAK_S * (1 - number / (FAILURES - 1)))
    assert not circuit.is_closed
    return circuit


def test_failures_in_a_row_open_it_once_they_have_lasted() -> None:
    circuit = new_circuit()
    assert [circuit.on_failure(7, 10.0) for _ in range(100)] == [False] * 100
    assert [circuit.on_failure(7, 10.0 + tenths / 10) for tenths in (1, 2, 3)] == [False, False, True]
    assert not circuit.on_failure(7, 11.0)  # open already


def test_a_pause_of_our_own_process_does_not_open_it() -> None:
    circuit = new_circuit()
    circuit.on_failure(7, 10.0)
    assert [circuit.on_failure(7, 12.0) for _ in range(100)] == [False] * 100
    assert [circuit.on_failure(8, 14.0) for _ in range(100)] == [False] * 100


def test_few_failures_do_not_open_it_however_long_they_last() -> None:
    circuit = new_circuit()
    assert not any(circuit.on_failure(7, 10.0 + second) for second in range(FAILURES - 1))
    assert circuit.is_closed


def test_one_good_answer_between_them_begins_the_count_anew() -> None:
    circuit = new_circuit()
    for second in range(1000):
        assert not circuit.on_failure(second // (FAILURES - 1), float(second))


def test_an_open_one_lets_one_probe_through_after_its_pause() -> None:
    circuit = opened()
    assert not circuit.may_probe(PAUSE_S * 0.99)
    assert [circuit.may_probe(PAUSE_S) for _ in range(3)] == [True, False, False]


def test_good_probes_close_it() -> None:
    circuit = opened()
    for number in range(PROBES):
        assert not circuit.is_closed
        assert circuit.may_probe(PAUSE_S)
        assert circuit.on_probe(True, PAUSE_S) is (number == PROBES - 1)
    assert circuit.is_closed
    assert not circuit.on_failure(0, 100.0)


def test_a_bad_probe_doubles_the_pause_up_to_its_limit() -> None:
    circuit = opened()
    now_s, pauses = 0.0, []
    for _ in range(8):
        start_s = now_s
        while not circuit.may_probe(now_s):
            now_s += 0.01
        pauses.append(round(now_s - start_s, 1))
        circuit.on_probe(False, now_s)
    assert pauses[1:] == [0.5, 1.0, 2.0, 4.0, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]


def test_a_bad_probe_after_good_ones_begins_anew() -> None:
    circuit = opened()
    for _ in range(PROBES - 1):
        assert circuit.may_probe(1.0)
        circuit.on_probe(True, 1.0)
    assert circuit.may_probe(1.0)
    circuit.on_probe(False, 1.0)
    for _ in range(PROBES - 1):
        assert circuit.may_probe(9.0)
        assert not circuit.on_probe(True, 9.0)
    assert not circuit.is_closed


def test_a_probe_that_says_nothing_is_followed_by_another_at_once() -> None:
    circuit = opened()
    assert circuit.may_probe(PAUSE_S)
    assert not circuit.on_probe(None, PAUSE_S)
    assert circuit.may_probe(PAUSE_S)


def test_pauses_are_spread() -> None:
    draws = iter([0.0, 0.5])
    circuit = Circuit(lambda: next(draws))
    for number in range(FAILURES):
        circuit.on_failure(0, float(number))
    assert circuit.may_probe(FAILURES - 1 + PAUSE_S / 2)
    circuit.on_probe(False, 0.0)
    assert not circuit.may_probe(2 * PAUSE_S * 0.74)
    assert circuit.may_probe(2 * PAUSE_S * 0.76)
