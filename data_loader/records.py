"""Reading lists of records, and keeping millions of strings without millions of Python objects."""

import csv
import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd


class Strings(Sequence):
    """An immutable list of strings in two arrays: the UTF-8 bytes end to end, and where each string ends.

    DataLoader workers share these arrays with their parent. A Python list would be copied into every worker
    little by little, because reading an object writes its reference count.
    """

    def __init__(self, strings: Iterable[str]):
        content, ends = bytearray(), array("q")
        for string in strings:
            content += string.encode()
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
        return self._bytes[start : self._ends[i]].tobytes().decode()

    def take(self, indices: Iterable[int]) -> "Strings":
        """The strings at these indices, in their order."""
        return Strings(self[i] for i in indices)


def need_file(path: Path, what: str, hint: str = "") -> Path:
    """`path`, or a FileNotFoundError that says what should be there and how to get it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {what}" + (f"\n{hint}" if hint else ""))
    return path


def need_folder(path: Path, what: str, hint: str = "") -> Path:
    """`path`, or a FileNotFoundError that says what should be there and how to get it."""
    if not path.is_dir():
        raise FileNotFoundError(f"the folder {path} is missing: {what}" + (f"\n{hint}" if hint else ""))
    return path


def read_table(
    path: Path, what: str, hint: str = "", *, sep: str = "\t", header: bool = True
) -> pd.DataFrame:
    """A table with every cell as a string (a caption "NA" stays a caption), quoted as pandas does by default.

    Raises FileNotFoundError when there is no such file, ValueError when it is empty or no table.
    """
    need_file(path, what, hint)
    try:
        return pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, header=0 if header else None)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} does not read as a table of {what}: {error}") from error


def first_row(path: Path, what: str, hint: str = "", *, sep: str = "\t") -> list[str]:
    """The cells of the first line, to tell a header from a record."""
    need_file(path, what, hint)
    with open(path, newline="", encoding="utf-8-sig") as file:
        return next(csv.reader(file, delimiter=sep), [])


def need_column(table: pd.DataFrame, column: str | int, path: Path) -> pd.Series:
    """A column by name or place, or a ValueError that lists the columns there are."""
    if isinstance(column, int):
        if not -table.shape[1] <= column < table.shape[1]:
            raise ValueError(f"{path} needs at least {column + 1} columns, found {list(table.columns)}")
        return table.iloc[:, column]
    if column not in table.columns:
        raise ValueError(f"{path} has no column {column!r}; its columns are {list(table.columns)}")
    return table[column]


def read_json(path: Path, what: str, hint: str = ""):
    """A JSON file, or FileNotFoundError / ValueError naming it."""
    need_file(path, what, hint)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({what}): {error}") from error


def read_lines(path: Path, what: str, hint: str = "") -> list[str]:
    """The lines of a list without header, stripped, empty ones dropped."""
    text = need_file(path, what, hint).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def prepare_hint(dataset: str) -> str:
    """How the metadata of a data set is made from what its own site distributes."""
    return f"Make it with: python -m data_loader.prepare {dataset} --help"
