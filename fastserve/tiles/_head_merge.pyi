from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = npt.NDArray[np.int64]

def find_blocks(
    blocks: list[Any], whole_units: int, items: bytes, words: bytes, placed: Words, /
) -> bool: ...
def merge_heads(
    program: bytes,
    bounds: bytes,
    words: bytes,
    placed: Words,
    floors: Words,
    columns: Words,
    matrix: Words,
    newest: Words,
    first_word: int,
    now_ns: int,
    is_told: bool,
    /,
) -> bool | None: ...
