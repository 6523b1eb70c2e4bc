"""Giving back what a large model took."""

import ctypes
import gc


def give_back() -> None:
    """To the system what nothing refers to any more; by itself glibc keeps gigabytes of it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
