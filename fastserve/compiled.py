"""What the compiled build is told in the source, and what of this one is compiled.

The modules of a request's way can be compiled by mypyc (`deploy/compiled.py`). Some classes tell it something
that nobody else needs to know, by `mypyc_attr`; where they run as Python it changes nothing, so that nothing
of mypyc has to be installed. This module itself is never compiled.

Invariants
1. A class that is decorated here is the class that was written.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["has_loops", "is_compiled", "mypyc_attr"]

_LOOPS = (
    "fastserve.api._float_text",
    "fastserve.store.dynamodb._plain_rows",
    "fastserve.tiles._head_merge",
    "fastserve.tiles._merge_loop",
)

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:
    Class = TypeVar("Class")

    def mypyc_attr(*_names: str, **_values: Any) -> Any:
        """Return a decorator that leaves a class as it is."""
        return _same

    def _same(found: Class) -> Class:
        return found


def is_compiled() -> bool:
    """Whether the modules of a request's way run compiled: all do, or none."""
    spec = find_spec("fastserve.serving.coalescer")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def has_loops() -> bool:
    """Whether the inner loops in C are here: where they aren't, their twins in Python run."""
    return all(find_spec(name) is not None for name in _LOOPS)
