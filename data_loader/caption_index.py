"""MSR-VTT's pickled caption index, read as data."""

from pathlib import Path
from typing import Any

from utils.inert_pickle import DAMAGED, Record, check_file, load_plain

NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def read_index(path: str | Path) -> dict[str, int]:
    """A pickled dict of name -> whole number, and nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds anything but a dict of texts and (numpy) integers; names it. Nothing that the
            pickle names is imported or called.
    """
    try:
        with check_file(path).open("rb") as file:
            content = load_plain(file, encoding="latin-1")
        items = content.items if isinstance(content, Record) else content
        if not isinstance(items, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return {_text(name): _whole_number(value) for name, value in items.items()}
    except DAMAGED as error:
        raise ValueError(f"{path} is not a pickled dict of name -> caption number: {error}") from error


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a key of it is no text but a {type(name).__name__}")
    return name


def _whole_number(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, Record) and value.named in NUMPY_SCALARS:
        dtype, raw = value.args
        kind, size = dtype.args[0][0], int(dtype.args[0][1:])
        raw = _bytes(raw)
        if kind in "iu" and len(raw) == size:
            big_endian = dtype.state is not None and dtype.state[1] == ">"
            return int.from_bytes(raw, "big" if big_endian else "little", signed=kind == "i")
    named = value.named if isinstance(value, Record) else type(value).__name__
    raise TypeError(f"a value of it is no whole number but {named}")


def _bytes(raw: Any) -> bytes:
    """Protocol 2 has no bytes: Python 2 wrote a string, Python 3 writes `_codecs.encode(text, "latin1")`."""
    if isinstance(raw, Record) and raw.named == "_codecs.encode":
        raw = raw.args[0]
    return raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)
