"""Reading lists and annotations: what does not read as it should is an error that names file and line."""

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.text import counted

BROKEN_CELL = re.compile(r"[\t\n\r\0]")
SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon"}


class Table:
    """The cells of a list, by column, all of them strings (a caption "NA" stays a caption).

    `names` are the header's, or "0", "1", … without one; `line(row)` says where a row begins in the file.
    """

    def __init__(self, path: Path, names: list[str], columns: list[list[str]], lines: array):
        self.path, self.names, self.columns, self.lines = path, names, columns, lines

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def column(self, column: str | int, *, may_be_empty: bool = False) -> list[str]:
        """A column by name or by place, which may count from the end.

        Raises ValueError: no such column (those there are are named), two of the name, or an empty cell.
        """
        if isinstance(column, int):
            if not -len(self.names) <= column < len(self.names):
                raise ValueError(f"{self.path} needs at least {column + 1} columns, found {self.names}")
            place = column % len(self.names)
        elif self.names.count(column) != 1:
            how_many = "several columns" if column in self.names else "no column"
            raise ValueError(f"{self.path} has {how_many} {column!r}; its columns are {self.names}")
        else:
            place = self.names.index(column)
        cells = self.columns[place]
        if not may_be_empty:
            for row, cell in enumerate(cells):
                if not cell or cell.isspace():
                    raise ValueError(
                        f"{self.where(row)}: the cell in column {place + 1} is empty; "
                        "fill it or take the row out"
                    )
        return cells


def read_table(
    path: Path,
    what: str,
    hint: str = "",
    *,
    sep: str = "\t",
    header: bool | Callable[[list[str]], bool] = True,
    join_lines: bool = False,
) -> Table:
    """A table in UTF-8, quoted as pandas and spreadsheets do it: "a ""b"", c".

    Args:
        what: the table's content, for messages; `hint`: how to get it when it is missing.
        header: whether the first row names the columns, or a function of its cells that tells.
        join_lines: a quoted cell may go over several lines, as captions do in some official csv files; it
            becomes one line. Otherwise such a cell is an error, as it nearly always comes from a quote at
            the start of a caption, which swallows all rows up to the next quote.

    Raises FileNotFoundError when there is no such file; ValueError, naming the line, when it is empty, a row
    has more or fewer cells than the first one, a cell holds a tab or goes over several lines, or text is not
    UTF-8.
    """
    names: list[str] = []
    columns: list[list[str]] = []
    lines = array("q")
    for number, row in _rows(need_file(path, what, hint), sep):
        where = f"{path}, line {number}"
        row = [_one_line(cell, where, sep, len(columns) or len(row), join_lines) for cell in row]
        if columns and len(row) != len(columns):
            raise ValueError(
                f"{where}: {counted(len(row), 'cells')}, where the first row has {len(columns)}; is there a "
                f"{SEPARATORS.get(sep, repr(sep))} too many or too few? A cell that holds one must be quoted"
            )
        if not columns:
            columns = [[] for _ in row]
            has_header = header(row) if callable(header) else header
            names = row if has_header else [str(i) for i in range(len(row))]
            if has_header:
                continue
        for column, cell in zip(columns, row, strict=True):
            column.append(cell)
        lines.append(number)
    if not lines:
        raise ValueError(f"{path} is empty: expected {what}")
    return Table(path, names, columns, lines)


def _rows(path: Path, sep: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of every row that is not blank."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=sep)
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader, None)
            except UnicodeDecodeError as error:
                raise not_utf8(path) from error
            except csv.Error as error:
                raise ValueError(f"{path}, line {number}: {error}; is a quote never closed?") from error
            if row is None:
                return
            if len(row) > 1 or (row and row[0].strip()):
                yield number, row


def _one_line(cell: str, where: str, sep: str, num_cells: int, join_lines: bool) -> str:
    found = BROKEN_CELL.search(cell)
    if not found:
        return cell
    rest = re.split(r"[\n\r]+", cell)[1:]
    swallows_rows = any(line.count(sep) >= num_cells - 1 for line in rest)
    if join_lines and "\0" not in cell and not swallows_rows:
        return re.sub(r"[\t\n\r]+", " ", cell).strip()
    what = {"\t": "a tab", "\0": "a zero byte"}.get(found[0], "several lines")
    raise ValueError(
        f"{where}: a cell holds {what}, {cell[:60]!r}…; a quote at the start of a cell needs one at its end "
        'and quotes within it doubled ("say ""hi"""), or must be taken out, and a cell is one line'
    )


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


def read_text(path: Path) -> str:
    """A file's text, without the mark of byte order that Windows puts first. ValueError if not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error


def not_utf8(path: Path) -> ValueError:
    """The error for a file that is not UTF-8, with its first line that is not."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return ValueError(
                    f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; if it comes from Windows: "
                    f"iconv -f cp1252 -t utf-8 {path.name} > new"
                )
    return ValueError(f"{path} is not UTF-8")


def parse_json(text: str | bytes) -> Any:
    """JSON in which no object names a key twice: of two values, which one is meant?

    Raises ValueError, also for what is nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"an object has the key {twice!r} twice")
    return content


def read_json(path: Path, what: str, hint: str = "") -> Any:
    """A JSON file, or FileNotFoundError / ValueError naming it."""
    text = read_text(need_file(path, what, hint))
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({what}): {error}") from error


def need_text(value: Any, what: str) -> str:
    """`value` from a JSON file if it is a text of more than blanks; `what` names it with its place.

    Raises ValueError for anything else, and for half a surrogate pair ("\\ud83d"), which no file can hold.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r}, not a text")
    if not value or value.isspace():
        raise ValueError(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}, {value!r}, holds half a character (a lone surrogate)") from error
    return value


def read_lines(path: Path, what: str, hint: str = "") -> list[str]:
    """The lines of a list without header, stripped, empty ones dropped. ValueError where there is none."""
    return [line for _, line in numbered_lines(path, what, hint)]


def numbered_lines(path: Path, what: str, hint: str = "") -> list[tuple[int, str]]:
    """`read_lines` with the number of each line."""
    # not splitlines(), which also cuts at characters that a text or name may hold, such as U+2028
    lines = read_text(need_file(path, what, hint)).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"{path} is empty: expected {what}")
    return numbered


def first_repeated(values: Sequence[str]) -> tuple[int, int] | None:
    """The places of the first value that comes a second time: (first, second)."""
    seen: dict[str, int] = {}
    for i, value in enumerate(values):
        if value in seen:
            return seen[value], i
        seen[value] = i
    return None


def list_of_split(kind: str, files: str | dict[str, str], split: str) -> str:
    """The list of a split, of one for all or of one for each. Raises ValueError where it has none."""
    file = files.get(split) if isinstance(files, dict) else files
    if file is None:
        raise ValueError(f"{kind}: no list for the split {split!r}, only for {sorted(files)}")
    return file


def prepare_hint(dataset: str, what: str = "it") -> str:
    """How to get a data set's metadata: the official lists, or made from what its own site distributes."""
    made = f"with: python -m data_loader.prepare {dataset} --help"
    if dataset == "shards":
        return f"Make {what} {made}"
    return f"Fetch the official lists with: python -m model.download meta_data. Or make {what} {made}"
