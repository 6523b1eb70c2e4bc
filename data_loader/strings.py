"""Millions of strings without millions of Python objects."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np


class Strings(Sequence):
    """An immutable list of strings in two arrays: the UTF-8 bytes end to end, and where each string ends.
    Bytes in names of files that are not UTF-8 stay as they are.

    DataLoader workers share these arrays with their parent. A Python list would be copied into every worker
    little by little, because reading an object writes its reference count.
    """

    def __init__(self, strings: Iterable[str]):
        content, ends = bytearray(), array("q")
        for string in strings:
            content += string.encode(errors="surrogateescape")
            ends.append(len(content))
        self._bytes = np.frombuffer(bytes(content), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = int(index)
        i = i + len(self) if i < 0 else i
        if not 0 <= i < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        start = self._ends[i - 1] if i else 0
        return self._bytes[start : self._ends[i]].tobytes().decode(errors="surrogateescape")
