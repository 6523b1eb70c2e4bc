"""Lists of anyone's videos and their texts (captions, labels), in any form, as rows: a video, or a span of
it, and a text."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_loader.list_columns import ListColumns, read_columns
from data_loader.lists import read_table
from data_loader.spans import read_spans

SPAN = re.compile(r"#t=[^#]*$")  # behind the file in the name of a span, as in links to pieces of videos


class TextRows(NamedTuple):
    """A text of a video a row.

    names: paths below the root, of spans with them: a.mp4#t=2,5.5. texts: "" for none. where: a row stands in
    the list. spans: float64 [rows, 2] in seconds; None where all rows are of whole videos.
    """

    names: list[str]
    texts: list[str]
    where: Callable[[int], str]
    spans: np.ndarray | None = None


def file_of_name(name: str, suffix: str = "", spans: bool = False) -> str:
    """The file of a row's name, below the root."""
    return (SPAN.sub("", name) if spans else name) + suffix


def file_namer(rows: TextRows, suffix: str) -> Callable[[str], str]:
    return partial(file_of_name, suffix=suffix, spans=rows.spans is not None)


def read_rows(
    path: Path,
    what: str,
    path_column: str | int,
    text_column: str | int,
    sep: str | None = None,
    *,
    may_lack: bool = False,
    start_column: str | int | None = None,
    end_column: str | int | None = None,
) -> TextRows:
    """A list with a column of paths and one of texts, and maybe of starts and ends of spans.

    Tables have a header, and commas or, as .tsv, tabs between their columns; .jsonl has an object a line;
    .parquet is one. In the latter two a text may be a number, or a list of texts, a row each.

    Args:
        path_column, text_column: names, or places counted from 0. sep: of other tables.
        may_lack: whether a video may have no text.
        start_column, end_column: None: those called start and end, where the list has them.

    Raises FileNotFoundError, or ValueError that names the line.
    """
    if path.suffix in (".jsonl", ".parquet"):
        found = read_columns(path, what)
        videos, texts, rows = flattened(found, path_column, text_column, may_lack)
        times = {
            which: [cells_of(found, column)[row] for row in rows]
            for which, column in time_columns(start_column, end_column, list(found.columns)).items()
        }

        def where(row: int) -> str:
            return found.where(rows[row])

    else:
        table = read_table(path, what, sep=sep or ("\t" if path.suffix == ".tsv" else ","))
        videos, texts = table.column(path_column), table.column(text_column, may_be_empty=may_lack)
        times = {
            which: table.column(column, may_be_empty=True)
            for which, column in time_columns(start_column, end_column, table.names).items()
        }
        where = table.where
    if not times:
        return TextRows(videos, texts, where)
    spans = read_spans(times.get("start"), times.get("end"), where)
    names = [
        f"{video}#t={exact(start)},{exact(end)}" for video, (start, end) in zip(videos, spans, strict=True)
    ]
    return TextRows(names, texts, where, spans)


def time_columns(
    start: str | int | None, end: str | int | None, names: Sequence[str]
) -> dict[str, str | int]:
    """The columns of starts and ends that were asked for, or that a list of these columns has by itself."""
    asked = {"start": start, "end": end}
    return {
        which: which if column is None else column
        for which, column in asked.items()
        if column is not None or which in names
    }


def exact(seconds: float) -> str:
    """A time in as many digits as it needs: rounded, two spans of a long video could have one name."""
    return repr(float(seconds)).removesuffix(".0")


def flattened(
    found: ListColumns, path_column: str | int, text_column: str | int, may_lack: bool
) -> tuple[list[str], list[str], list[int]]:
    """(videos, texts, their rows in the list), a row for each text of a cell."""
    paths = found.texts(column_name(found, path_column))
    name, cells = column_name(found, text_column), cells_of(found, text_column)
    videos, texts, rows = [], [], []
    for row, (video, cell) in enumerate(zip(paths, cells, strict=True)):
        own = list(cell) if isinstance(cell, list) else [cell]
        for one in own or [None]:
            text = text_of(one)
            if text is None or not (text or may_lack):
                raise ValueError(
                    f"{found.where(row)}: {name!r} is {cell!r}; a text, or a list of texts, is needed"
                )
            videos.append(video)
            texts.append(text)
            rows.append(row)
    return videos, texts, rows


def cells_of(found: ListColumns, column: str | int) -> list[Any]:
    """Raises ValueError: there is no such column."""
    name = column_name(found, column)
    if name not in found.columns:
        raise ValueError(f"{found.path} has no column {name!r}; its columns are {list(found.columns)}")
    return found.columns[name]


def column_name(found: ListColumns, column: str | int) -> str:
    """A column's name, which may be given as its place. Raises ValueError: there is no such place."""
    if isinstance(column, str):
        return column
    names: Sequence[str] = list(found.columns)
    if column >= len(names):
        raise ValueError(f"{found.path} needs at least {column + 1} columns, found {names}")
    return names[column]


def text_of(cell: Any) -> str | None:
    """A text, stripped; a whole number as one; an empty cell as ""; None for anything else."""
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    return cell.strip() if isinstance(cell, str) else None
