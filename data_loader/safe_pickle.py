"""Reading MSR-VTT's pickled caption index without running what a pickle may name."""

import pickle
from pathlib import Path

import numpy as np


def _numpy_dtype(name, *_) -> np.dtype:
    dtype = np.dtype(str(name))
    if dtype.kind not in "iu":
        raise pickle.UnpicklingError(f"an array type {name!r}, where only integers are expected")
    return dtype


def _numpy_scalar(dtype: np.dtype, raw: bytes) -> int:
    if dtype.kind not in "iu":
        raise pickle.UnpicklingError("a number that is no integer")
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    return int(np.frombuffer(raw, dtype=dtype, count=1)[0])


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes as `_codecs.encode` for bytes in protocol 2."""
    return text.encode("latin-1")


# The only names a file may ask for, and our own harmless functions that stand in for them.
ALLOWED = {
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("_codecs", "encode"): _latin1,
    ("builtins", "int"): int,
    ("collections", "OrderedDict"): dict,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return ALLOWED[module, name]


def read_index(path: str | Path) -> dict[str, int]:
    """A pickled dict of name -> whole number, and nothing else.

    Raises ValueError, naming the file, for anything but plain containers and (numpy) integers; nothing that
    the pickle names is imported or called.
    """
    try:
        with open(path, "rb") as file:
            index = _PlainUnpickler(file, encoding="latin-1").load()
        return {str(name): int(number) for name, number in dict(index).items()}
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
    ) as error:
        raise ValueError(f"{path} is not a pickled dict of name -> caption number: {error}") from error
