from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import GAVE_UP, Coalescer, KeyRead

MAX_KEYS = 5
GROUPS = (
    ReadGroup(0, ("a",)),
    ReadGroup(1, ("b", "c")),
    ReadGroup(2, ("d", "e", "f")),
)


@dataclass(eq=False)
class Asker:
    """A waiter that remembers what it was told."""

    waiting: int = 0
    told: int = 0
    reads: list[KeyRead] = field(default_factory=list)


class Wire:
    """A coalescer with everything around it written down."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.batches: list[list[KeyRead]] = []
        self.flushes: list[Callable[[], None]] = []
        self.at_once = at_once
        self.coalescer = Coalescer(len(GROUPS), MAX_KEYS, self.fetch, self.flushes.append, self.on_ready)

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        self.batches.append(list(reads))
        if self.at_once:
            self.settle(*reads)

    def on_ready(self, waiters: list[Any]) -> None:
        for waiter in waiters:
            waiter.told += 1

    def ask(self, asker: Asker, *keys: tuple[int, str], deadline_s: float = 1.0) -> Asker:
        asker.waiting += len(keys)
        for group, key in keys:
            asker.reads.append(self.coalescer.read(GROUPS[group], key, asker, deadline_s))
        return asker

    def turn(self) -> None:
        """Let turns pass until nothing more is scheduled."""
        while self.flushes:
            self.pass_turn()

    def pass_turn(self) -> None:
        flushes, self.flushes[:] = list(self.flushes), []
        for flush in flushes:
            flush()

    def settle(self, *reads: KeyRead) -> None:
        for read in reads:
            if not read.settled:
                read.rows = [f"{table}/{read.key}" for table in read.group.tables]
        self.coalescer.settle(reads)

    @property
    def keys(self) -> list[list[str]]:
        return [[read.key for read in batch] for batch in self.batches]


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_nothing_is_sent_before_the_end_of_the_turn_and_all_of_it_then(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k1"))
    wire.ask(Asker(), (0, "k2"))
    assert wire.batches == []
    assert len(wire.flushes) == 1
    wire.turn()
    assert wire.keys == [["k1", "k2"]]


def test_a_turn_that_brought_several_requests_waits_for_the_next_one_once(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k1"))
    wire.ask(Asker(), (0, "k2"))
    wire.pass_turn()
    wire.ask(Asker(), (0, "k3"))
    wire.ask(Asker(), (0, "k4"))
    assert wire.batches == []
    wire.pass_turn()
    assert wire.keys == [["k1", "k2", "k3", "k4"]]
    assert wire.flushes == []


def test_a_lone_request_waits_for_its_turn_s_end_alone(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k1"), (0, "k2"))
    wire.pass_turn()
    assert wire.keys == [["k1", "k2"]]
    assert wire.flushes == []


def test_what_fills_a_call_goes_out_without_waiting_and_the_rest_waits_anew(wire: Wire) -> None:
    for number in range(MAX_KEYS + 2):
        wire.ask(Asker(), (0, f"k{number}"))
    assert [len(batch) for batch in wire.batches] == [MAX_KEYS]
    wire.turn()
    assert [len(batch) for batch in wire.batches] == [MAX_KEYS, 2]


def test_the_next_turn_schedules_its_own_flush(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k1"))
    wire.turn()
    wire.ask(Asker(), (0, "k2"))
    assert len(wire.flushes) == 1
    wire.turn()
    assert wire.keys == [["k1"], ["k2"]]


def test_a_flush_with_nothing_pending_sends_nothing(wire: Wire) -> None:
    wire.coalescer.flush()
    assert wire.batches == []
    assert wire.coalescer.calls == 0


def test_a_key_asked_twice_is_read_once_and_both_get_its_rows(wire: Wire) -> None:
    one = wire.ask(Asker(), (0, "k"))
    other = wire.ask(Asker(), (0, "k"))
    wire.turn()
    assert wire.keys == [["k"]]
    assert one.reads == other.reads
    wire.settle(*wire.batches[0])
    assert (one.told, other.told) == (1, 1)
    assert one.reads[0].rows == ["a/k"]
    assert (wire.coalescer.joined, wire.coalescer.keys, wire.coalescer.calls) == (1, 1, 1)


def test_a_key_on_the_wire_is_joined_and_not_read_again(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k"))
    wire.turn()
    late = wire.ask(Asker(), (0, "k"))
    wire.turn()
    assert wire.keys == [["k"]]
    wire.settle(*wire.batches[0])
    assert late.told == 1


def test_a_settled_key_is_read_anew(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k"))
    wire.turn()
    wire.settle(*wire.batches[0])
    wire.ask(Asker(), (0, "k"))
    wire.turn()
    assert wire.keys == [["k"], ["k"]]


def test_one_key_text_in_two_groups_is_two_reads(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k"), (1, "k"))
    wire.turn()
    assert wire.keys == [["k", "k"]]
    wire.settle(*wire.batches[0])
    assert [read.rows for read in asker.reads] == [["a/k"], ["b/k", "c/k"]]


def test_a_batch_never_costs_more_keys_than_a_call_may(wire: Wire) -> None:
    wire.ask(Asker(), *[(2, f"k{number}") for number in range(4)])
    wire.turn()
    assert wire.keys == [["k0"], ["k1"], ["k2"], ["k3"]]
    wire.ask(Asker(), (2, "m"), (1, "m"), (0, "m"))
    wire.turn()
    assert wire.keys[4:] == [["m", "m"], ["m"]]


def test_a_waiter_is_told_when_its_last_read_is_settled(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k1"), (1, "k2"), (2, "k3"))
    wire.turn()
    first, second = wire.batches
    wire.settle(*second)
    assert asker.told == 0
    wire.settle(*first)
    assert asker.told == 1


def test_a_waiter_that_asks_twice_for_one_key_waits_for_it_twice_and_is_told_once(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k"), (0, "k"))
    wire.turn()
    wire.settle(*wire.batches[0])
    assert (asker.waiting, asker.told) == (0, 1)


def test_a_second_settle_of_a_read_changes_nothing(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k1"), (0, "k2"))
    wire.turn()
    one, _ = wire.batches[0]
    wire.settle(one)
    wire.settle(one, one)
    assert (asker.waiting, asker.told) == (1, 0)


def test_a_late_second_settle_does_not_end_the_next_read_of_its_key(wire: Wire) -> None:
    wire.ask(Asker(), (0, "k"))
    wire.turn()
    old = wire.batches[0][0]
    wire.settle(old)
    asker = wire.ask(Asker(), (0, "k"))
    wire.turn()
    wire.settle(old)
    assert asker.told == 0
    assert wire.ask(Asker(), (0, "k")).reads == asker.reads


def test_a_waiter_that_gave_up_is_never_told(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k1"), (0, "k2"))
    beside = wire.ask(Asker(), (0, "k1"))
    wire.turn()
    asker.waiting = GAVE_UP
    wire.settle(*wire.batches[0])
    assert (asker.told, beside.told) == (0, 1)


def test_an_error_is_settled_like_rows(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k"))
    wire.turn()
    read = wire.batches[0][0]
    read.error = StoreError("down")
    wire.coalescer.settle([read])
    assert asker.told == 1
    assert wire.coalescer.in_flight() == 0


def test_a_read_on_the_wire_gets_the_latest_deadline_of_those_who_wait_for_it(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k"), deadline_s=2.0)
    wire.ask(Asker(), (0, "k"), deadline_s=5.0)
    wire.ask(Asker(), (0, "k"), deadline_s=3.0)
    assert asker.reads[0].deadline_s == 5.0


def test_a_store_that_settles_at_once_never_settles_the_read_that_is_being_asked_for() -> None:
    wire = Wire(at_once=True)
    asker = Asker(waiting=30)
    for number in range(30):
        read = wire.coalescer.read(GROUPS[number % 3], f"k{number}", asker, 1.0)
        assert not read.settled
    wire.turn()
    assert (asker.told, wire.coalescer.in_flight()) == (1, 0)


def test_settled_reads_and_waiters_hold_no_ring(wire: Wire) -> None:
    asker = wire.ask(Asker(), (0, "k"))
    wire.turn()
    wire.settle(*wire.batches[0])
    assert asker.reads[0].waiter is None
    assert asker.reads[0].joined is None


# --- a naive model ---------------------------------------------------------------------------------------


class AgainstModel(RuleBasedStateMachine):
    """Any order of asking, flushing, settling, forgetting, giving up, against a list of what is awaited."""

    @initialize()
    def start(self) -> None:
        self.wire = Wire()
        self.sent: list[KeyRead] = []
        self.seen = 0
        self.awaited: dict[Asker, list[KeyRead]] = {}
        self.gave_up: set[Asker] = set()

    @rule(
        keys=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("xyz")), min_size=1, max_size=4),
        deadline_s=st.floats(1, 9),
    )
    def ask(self, keys: list[tuple[int, str]], deadline_s: float) -> None:
        asker = self.wire.ask(Asker(), *keys, deadline_s=deadline_s)
        for (group, key), read in zip(keys, asker.reads, strict=True):
            assert (read.group.index, read.key, read.settled) == (group, key, False)
            assert read.deadline_s >= deadline_s
        self.awaited[asker] = list(asker.reads)

    @rule()
    def turn(self) -> None:
        self.wire.turn()

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        reads = [read for batch in self.wire.batches for read in batch]
        if reads:
            some = data.draw(st.lists(st.sampled_from(reads), max_size=4))
            self.wire.settle(*some)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiting = [asker for asker in self.awaited if asker.waiting > 0]
        if waiting:
            asker = data.draw(st.sampled_from(waiting))
            asker.waiting = GAVE_UP
            self.gave_up.add(asker)

    @invariant()
    def everybody_is_told_once_when_all_is_settled(self) -> None:
        for asker, reads in self.awaited.items():
            done = all(read.settled for read in reads)
            assert asker.told == (1 if done and asker not in self.gave_up else 0)

    @invariant()
    def batches_are_within_the_limit_and_hold_no_key_twice(self) -> None:
        for batch in self.wire.batches[self.seen :]:
            assert 0 < sum(read.group.size for read in batch) <= MAX_KEYS
            assert len({(read.group.index, read.key) for read in batch}) == len(batch)
        self.seen = len(self.wire.batches)

    @invariant()
    def what_is_awaited_is_pending_or_sent_once(self) -> None:
        sent = [id(read) for batch in self.wire.batches for read in batch]
        assert len(sent) == len(set(sent))
        unsent = {id(read) for reads in self.awaited.values() for read in reads} - set(sent)
        assert not unsent or self.wire.flushes

    def teardown(self) -> None:
        if hasattr(self, "wire"):
            self.wire.turn()
            self.wire.settle(*[read for batch in self.wire.batches for read in batch])
            self.everybody_is_told_once_when_all_is_settled()
            assert self.wire.coalescer.in_flight() == 0


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=80, stateful_step_count=30)


def test_a_read_of_a_group_that_is_pushed_to_is_joined_until_it_is_sent_and_not_after() -> None:
    batches: list[list[KeyRead]] = []
    flushes: list[Callable[[], None]] = []
    coalescer = Coalescer(
        1, 100, lambda reads: batches.append(list(reads)), flushes.append, lambda _: None, has_pushed=True
    )
    group = ReadGroup(0, ("t",), pushed=True)
    askers = [Asker() for _ in range(3)]
    first = coalescer.read(group, "k", askers[0], 1.0)
    assert coalescer.read(group, "k", askers[1], 1.0) is first
    flushes.pop()()
    later = coalescer.read(group, "k", askers[2], 1.0)
    assert later is not first
    assert coalescer.in_flight() == 2
    flushes.pop()()
    assert [[read.key for read in batch] for batch in batches] == [["k"], ["k"]]
    coalescer.settle(batches[1])
    coalescer.settle(batches[0])
    coalescer.settle(batches[0])
    assert coalescer.in_flight() == 0
