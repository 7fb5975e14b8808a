"""`Calculation`: a feature of an on-demand view that is an expression over the view's sources."""

from __future__ import annotations

from collections.abc import Mapping

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.types import INVALID, DataType, check_dtype


class Calculation(Immutable):
    """A feature computed by an expression.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    name: str
    expr: str
    given_dtype: DataType | None
    description: str
    tags: Mapping[str, str]
    location: Location
    valid: bool

    def __init__(
        self,
        name: str,
        expr: str,
        dtype: DataType | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        checks = Checks("Calculation", name)
        self.name = checks.identifier("name", name)
        self.expr = checks.text("expr", expr)
        self.given_dtype = None if dtype is None else check_dtype(checks, "dtype", dtype)
        self.description = checks.text("description", description)
        self.tags = checks.tags(tags)
        self.location = checks.location
        self.valid = checks.valid and self.given_dtype is not INVALID
        self._seal()

    def __repr__(self) -> str:
        return f"Calculation({self.name!r}, {self.expr!r})"
