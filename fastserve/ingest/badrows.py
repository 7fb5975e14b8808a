"""Rows that can't be used: counted, the first of them kept for the author to see, and how many are too many.

Knows no file and no SQL: whoever reads tells it what is wrong with which row.

Invariants
1. Every bad row is counted once, under the first column that is wrong.
2. What is shown of a row's content is at most 64 characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastserve.errors import DefinitionError, shown

SAMPLES = 10
TOLERATED_SHARE = 0.05
"""How many of a view's rows may be bad when nobody said. Flights without a tail number are 0.75 % of all
flights and no reason to stop; a timestamp column in another format is 100 %, and nothing must be written
then."""


class BadRowsError(DefinitionError):
    """More rows were bad than is tolerated; nothing of the view was written."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """One bad row: ``where`` in ``place`` it stands and what is wrong.

    ``where`` is ``row N`` (from 1; a CSV file's header isn't counted) or, if it can't be cut into columns,
    ``line N``.
    """

    place: str
    where: str
    column: str
    expected: str
    got: str | None

    def __str__(self) -> str:
        got = "null" if self.got is None else shown(self.got)
        return f"{self.place}, {self.where}: {self.column}: expected {self.expected}, got {got}"


@dataclass(slots=True)
class BadRows:
    """The bad rows of one view. ``limit`` None tolerates `TOLERATED_SHARE` of the rows.

    ``option`` is how whoever reads the message says that more of them are to be let pass.
    """

    view: str
    limit: int | None
    count: int = 0
    samples: list[BadRow] = field(default_factory=list)
    option: str = "--max-bad-rows N"

    def add(self, count: int, samples: list[BadRow]) -> None:
        """Count bad rows; of ``samples`` the first are kept."""
        self.count += count
        self.samples += samples[: SAMPLES - len(self.samples)]

    @property
    def over(self) -> bool:
        """Whether it is certain, before the last row is read, that there are too many."""
        return self.limit is not None and self.count > self.limit

    def check(self, rows_read: int) -> None:
        """Check that there aren't too many.

        Raises:
            BadRowsError: there are.
        """
        tolerated = int(rows_read * TOLERATED_SHARE) if self.limit is None else self.limit
        if self.count <= tolerated:
            return
        limit = f"{TOLERATED_SHARE:.0%} of all" if self.limit is None else "as was asked for"
        got = f"got {self.count} in {rows_read} rows; nothing was written"
        lines = [
            f"view {self.view!r}: expected at most {tolerated} bad rows ({limit}), {got}",
            *(f"  {sample}" for sample in self.samples),
            f"to leave out up to N bad rows and write the others: {self.option}",
        ]
        raise BadRowsError("\n".join(lines))
