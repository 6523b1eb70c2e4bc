"""Lists of videos, or of spans of them, whose other columns travel to the features."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_loader.list_columns import FORMS, read_columns
from data_loader.lists import read_lines
from data_loader.spans import Span, read_spans
from data_loader.video.sources import absolute, check_protocol, is_url
from downstream.embedding.clips import Clip
from downstream.inputs import beside

TIMES = ("start", "end")
OURS = {
    *("features", "tokens", "facts", "texts", "__metadata__"),
    *("size_bytes", "modified_ns", "duration", "num_frames"),
}

Columns = dict[str, list[str] | np.ndarray]


@dataclass(frozen=True)
class VideoList:
    """What a list names: of each row a clip, not yet looked at, and the other columns of the list."""

    clips: list[Clip]
    columns: Columns

    @property
    def has_spans(self) -> bool:
        return bool(self.clips) and self.clips[0].span is not None

    @property
    def sha256(self) -> str:
        """Of all that it says: names, spans and columns."""
        columns = {
            name: column if isinstance(column, list) else column.tolist()
            for name, column in self.columns.items()
        }
        rows = [[clip.path, clip.span] for clip in self.clips]
        return hashlib.sha256(json.dumps([rows, columns]).encode()).hexdigest()


def is_table(path: Path) -> bool:
    """Whether a list has columns: by its ending; a csv, by a header that names one of ours."""
    if path.suffix not in FORMS:
        return False
    if path.suffix in (".parquet", ".jsonl") or not path.is_file():
        return True
    first = read_lines(path, "videos")[0].split("\t" if path.suffix == ".tsv" else ",")
    return bool({cell.strip(' "') for cell in first} & {"path", *TIMES})


def read_video_list(path: Path) -> VideoList:
    """The rows of a csv, tsv, jsonl or parquet file with a column "path" and maybe "start" and "end".

    Paths are relative to the current or else to the list's own folder. A start or end is a number of seconds
    or 00:01:02.5, an empty one that of the video.

    Raises FileNotFoundError; ValueError, which names the line, for what cannot be read, a span that does not
    end after its start, a row that comes twice, and a column with a name that features use themselves.
    """
    table = read_columns(path, "paths of videos")
    paths = [_place(name, path.parent) for name in table.texts("path")]
    others = [name for name in table.columns if name not in ("path", *TIMES)]
    for name in others:
        if name in OURS or not name.strip(".") or "/" in name or "\0" in name:
            taken = name in OURS
            why = "features have a column of that name themselves" if taken else "not all formats take it"
            raise ValueError(f"{path}: the column {name!r} needs another name: {why}")
    spans = None
    if table.columns.keys() & set(TIMES):
        spans = read_spans(table.columns.get("start"), table.columns.get("end"), table.where).tolist()
    clips, places = [], dict[tuple[object, ...], int]()
    for row, name in enumerate(paths):
        span = None if spans is None else Span(*spans[row])
        before = places.setdefault((name, span), row)
        if before != row:
            raise ValueError(
                f"{table.where(row)}: names {name} as {table.where(before)} does; make one row of the two"
            )
        clips.append(Clip(name, span=span, row=row, where=table.where(row)))
    return VideoList(clips, {name: table.values(name) for name in others})


def _place(name: str, folder: Path) -> str:
    if is_url(name):
        check_protocol(name)
    return absolute(beside(os.path.expanduser(name), folder))
