"""Coalescing alone: reads asked for, sent as one batch, settled; all keys new, or all asked for twice.

Run as `python -m perf.micro.coalescer`. Figures are CPU microseconds per request of two read groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import Coalescer, KeyRead
from perf.micro.timing import show

REQUESTS = 16
GROUPS = [ReadGroup(0, ("perf.a", "perf.b")), ReadGroup(1, ("perf.c",))]


class Request:
    """Waits for its reads."""

    waiting = 0


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what is measured, by its name."""
    for name, keys in (("new keys", REQUESTS), ("keys asked for twice", REQUESTS // 2)):
        yield (
            f"coalescer: {REQUESTS} requests, {name}",
            _turn([f"user{at % keys:08d}" for at in range(REQUESTS)]),
        )


def _turn(keys: Sequence[str]) -> Callable[[], object]:
    sent: list[Sequence[KeyRead]] = []
    turns: list[Callable[[], None]] = []
    coalescer = Coalescer(len(GROUPS), 100, sent.append, turns.append, lambda _: None)

    def turn() -> None:
        for key in keys:
            request = Request()
            request.waiting = len(GROUPS)
            for group in GROUPS:
                coalescer.read(group, key, request, 0.0)
        # What a turn's end schedules is looked at in the same walk.
        for end in turns:
            end()
        turns.clear()
        for batch in sent:
            coalescer.settle(batch)
        sent.clear()

    return turn


def main() -> None:
    """Print the figures."""
    for name, case in cases():
        show(name, case, REQUESTS)


if __name__ == "__main__":
    main()
