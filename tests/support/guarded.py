"""Memory behind which there is none: what reads a byte too many there doesn't get away with it."""

from __future__ import annotations

import ctypes
from mmap import PAGESIZE, mmap

NO_ACCESS = 0


def guarded_memory(size: int) -> memoryview:
    """Return writable memory of so many bytes; the process dies of reading or writing the byte behind it."""
    pages = -(-size // PAGESIZE) * PAGESIZE
    memory = mmap(-1, pages + PAGESIZE)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(memory, pages))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(behind, PAGESIZE, NO_ACCESS) == 0
    return memoryview(memory)[pages - size : pages]
