from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Words: TypeAlias = npt.NDArray[np.int64]
_Floats: TypeAlias = npt.NDArray[np.float64]

class Program: ...

def prepare(text: _Words | bytes, /) -> Program: ...
def merge(
    program: Program, matrix: _Words, effective: _Words, floats: _Floats, ints: _Words, now_ns: int, /
) -> bool: ...
def has_odd(floats: _Floats, /) -> bool: ...
