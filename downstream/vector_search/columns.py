"""The columns of a table of features as a search has them: mapped into memory, and conditions on them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from utils.config import nearest_key

CONDITION = re.compile(
    r"\s*(?P<column>[^=!<>]+?)\s*(?P<sign>==|=|!=|<=|>=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL
)
COMPARE = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class NumberColumn:
    """A number or a truth value a row."""

    kind: ClassVar[str] = "number"

    def __init__(self, values: np.ndarray):
        self.values = values

    @classmethod
    def of_tensors(cls, name: str, tensors: Mapping[str, Tensor]) -> "NumberColumn":
        return cls(tensors[f"numbers {name}"].numpy())

    def tensors(self, name: str) -> dict[str, Tensor]:
        return {f"numbers {name}": torch.from_numpy(self.values)}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> Any:
        return self.values[row].item()

    def compare(self, sign: str, value: str) -> np.ndarray:
        """The rows, bool [N], whose number is =, !=, <, <=, > or >= a value. ValueError: it is none."""
        truth = {"true": 1, "false": 0} if self.values.dtype == np.bool_ else {}
        for read in (truth.__getitem__, int, float):  # an int as it is: float has 53 bits
            try:
                return COMPARE[sign](self.values, read(value.lower()))
            except (KeyError, ValueError, OverflowError):
                continue
        raise ValueError(f"it holds numbers, and {value!r} is none")


class TextColumn:
    """A text a row, each kept once: `codes` [N] says which, `ends` [U] where it ends in `utf8`."""

    kind: ClassVar[str] = "text"

    def __init__(self, codes: np.ndarray, ends: np.ndarray, utf8: np.ndarray):
        self.codes, self.ends, self.utf8 = codes, ends, utf8
        if not (
            codes.dtype == np.int32
            and ends.dtype == np.int64
            and utf8.dtype == np.uint8
            and codes.ndim == ends.ndim == utf8.ndim == 1
            and (not len(codes) or 0 <= codes.min() <= codes.max() < len(ends))
            and (not len(ends) or (ends[0] >= 0 and ends[-1] == len(utf8) and (np.diff(ends) >= 0).all()))
        ):
            raise ValueError("its texts do not fit together")

    @classmethod
    def of(cls, values: Sequence[str]) -> "TextColumn":
        number: dict[str, int] = {}
        codes = np.fromiter((number.setdefault(text, len(number)) for text in values), np.int32, len(values))
        parts = [_encode(text) for text in number]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))
        return cls(codes, ends, np.frombuffer(bytearray(b"".join(parts)), dtype=np.uint8))

    @classmethod
    def of_tensors(cls, name: str, tensors: Mapping[str, Tensor]) -> "TextColumn":
        return cls(*(tensors[f"{part} {name}"].numpy() for part in ("codes", "ends", "utf8")))

    def tensors(self, name: str) -> dict[str, Tensor]:
        parts = {"codes": self.codes, "ends": self.ends, "utf8": self.utf8}
        return {f"{part} {name}": torch.from_numpy(values) for part, values in parts.items()}

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> Any:
        return self.text(int(self.codes[row]))

    def text(self, code: int) -> str:
        start = self.ends[code - 1] if code else 0
        return self.utf8[start : self.ends[code]].tobytes().decode(errors="surrogatepass")

    def texts(self) -> list[str]:
        """Each different text."""
        return [self.text(code) for code in range(len(self.ends))]

    def compare(self, sign: str, value: str) -> np.ndarray:
        """The rows, bool [N], whose text is = or != a value. Raises ValueError: another sign."""
        if sign not in ("=", "!="):
            raise ValueError("it holds texts, which can be asked for with = and != alone")
        wanted = np.frombuffer(_encode(value), dtype=np.uint8)
        starts = np.concatenate([[0], self.ends[:-1]])
        alike = np.flatnonzero(self.ends - starts == len(wanted))
        for place, byte in enumerate(wanted):
            alike = alike[self.utf8[starts[alike] + place] == byte]
        return COMPARE[sign](self.codes, alike[0] if len(alike) else -1)


Column = NumberColumn | TextColumn
WIDER = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}


def column_of(values: Sequence[Any] | np.ndarray) -> Column:
    """The column of N values: numbers and truth values as they are, anything else (dates) as texts."""
    if isinstance(values, np.ndarray) and values.dtype.kind in WIDER:
        return NumberColumn(values.astype(WIDER[values.dtype.kind]))
    return TextColumn.of([str(value) for value in values])


def column_in(kind: str, name: str, tensors: Mapping[str, Tensor]) -> Column:
    """The column that its `tensors` are of. Raises KeyError, ValueError: they are not there or do not fit."""
    kinds: dict[str, type[NumberColumn] | type[TextColumn]] = {"number": NumberColumn, "text": TextColumn}
    return kinds[kind].of_tensors(name, tensors)


def _encode(text: str) -> bytes:
    """Names of files that are not UTF-8 hold lone surrogates."""
    return text.encode(errors="surrogatepass")


@dataclass(frozen=True)
class Condition:
    """What a row must have: a column, one of = != < <= > >=, and a value."""

    column: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """`label=dog`, `label == 'a dog'`, `duration>60`. Raises ValueError: it is of another form."""
        match = CONDITION.fullmatch(text)
        if not match:
            raise ValueError(
                f"--where {text!r} is no condition; write COLUMN=VALUE, with one of = != < <= > >=, "
                "such as label=dog or 'duration>60'"
            )
        value = match["value"]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        return cls(match["column"], match["sign"].replace("==", "="), value)

    def rows(self, columns: Mapping[str, Column], file: str) -> np.ndarray:
        """The rows for which it holds, bool [N]. Raises ValueError: no such column or comparison."""
        if self.column not in columns:
            raise ValueError(f"{file} has no column {self.column!r}; {nearest_key(self.column, columns)}")
        try:
            return columns[self.column].compare(self.sign, self.value)
        except ValueError as error:
            raise ValueError(f"--where: column {self.column!r} of {file}: {error}") from error
