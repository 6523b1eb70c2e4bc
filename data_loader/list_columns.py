"""Lists in any form, csv, tsv, jsonl or parquet, as columns of texts and numbers."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.lists import need_file, numbered_lines, parse_json, read_table

FORMS = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class ListColumns:
    """A list's cells by column, None where there is none. lines: where each row stands in the file.

    Cells of csv and tsv are texts, those of jsonl and parquet what they are there.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}, {'row' if self.path.suffix == '.parquet' else 'line'} {self.lines[row]}"

    def texts(self, name: str) -> list[str]:
        """A column of texts, none of them empty. Raises ValueError: no such column, or another cell."""
        if name not in self.columns:
            raise ValueError(f"{self.path} has no column {name!r}; its columns are {list(self.columns)}")
        for row, cell in enumerate(self.columns[name]):
            if not isinstance(cell, str) or not cell.strip():
                raise ValueError(f"{self.where(row)}: {name!r} is {cell!r}; a text is needed")
        return self.columns[name]

    def values(self, name: str) -> list[str] | np.ndarray:
        """A column as a table of features keeps it: texts as list[str], an empty cell as ""; numbers and
        truth values as an array, an empty cell as NaN. Raises ValueError where cells are neither, or both."""
        cells = self.columns[name]
        kinds = {type(cell) for cell in cells} - {type(None)}
        empty = None in cells
        if kinds <= {str}:
            texts = ["" if cell is None else cell for cell in cells]
            for row, text in enumerate(texts):
                if "\0" in text:  # which not all formats of features keep
                    raise ValueError(f"{self.where(row)}: {name!r} holds a zero byte")
                try:
                    text.encode(errors="surrogateescape")
                except UnicodeEncodeError as error:
                    raise ValueError(f"{self.where(row)}: {name!r} holds half a character") from error
            return texts
        if kinds == {bool} and not empty:
            return np.array(cells)
        whole = kinds == {int} and not empty
        if not kinds <= {int, float}:
            found = ", ".join(sorted(kind.__name__ for kind in kinds | ({type(None)} if empty else set())))
            raise ValueError(
                f"{self.path}: the column {name!r} holds {found}; a column is of texts or of numbers, "
                "make it one or take it out"
            )
        if kinds == {int, float} or (kinds == {int} and empty):
            too_large = [row for row, cell in enumerate(cells) if cell is not None and abs(cell) > 2**53]
            if too_large:
                raise ValueError(
                    f"{self.where(too_large[0])}: {name!r} is too large beside empty cells or fractions"
                )
        try:
            return np.array(cells, np.int64 if whole else np.float64)
        except OverflowError as error:
            raise ValueError(f"{self.path}: a number in the column {name!r} is too large") from error


def read_columns(path: Path, what: str) -> ListColumns:
    """A list by its ending, one of FORMS. what: it holds, for messages.

    csv and tsv have a header; jsonl has an object a line, and what one of them lacks is an empty cell.
    Raises FileNotFoundError; ValueError, naming the line, where it does not read as it should.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, what)
    if path.suffix == ".jsonl":
        return _read_jsonl(path, what)
    table = read_table(path, what, sep="\t" if path.suffix == ".tsv" else ",")
    for name in table.names:
        if not name.strip() or table.names.count(name) > 1:
            raise ValueError(f"{path}: its columns are {table.names}; each needs a name of its own")
    return ListColumns(path, dict(zip(table.names, table.columns, strict=True)), table.lines)


def _read_jsonl(path: Path, what: str) -> ListColumns:
    lines, objects = array("q"), []
    for number, line in numbered_lines(path, what):
        try:
            content = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is no JSON object")
        lines.append(number)
        objects.append(content)
    names = dict.fromkeys(name for content in objects for name in content)
    return ListColumns(path, {name: [content.get(name) for content in objects] for name in names}, lines)


def _read_parquet(path: Path, what: str) -> ListColumns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    need_file(path, what)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no parquet file ({error}): expected {what}") from error
    if not table.num_rows:
        raise ValueError(f"{path} is empty: expected {what}")
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"{path}: its columns are {table.column_names}; each needs a name of its own")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return ListColumns(path, columns, range(1, table.num_rows + 1))
