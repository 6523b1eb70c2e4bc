"""Captions and paths: WebVid, DiDeMo, LSMDC, and any list with a column of each ("csv")."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_loader.lists import Table, list_of_split, need_folder, prepare_hint, read_table
from data_loader.records import CaptionRecords, SequenceRecords
from data_loader.text_rows import file_namer, read_rows
from utils.text import counted

logger = logging.getLogger(__name__)

VALIDATION_ROWS = 1000  # of WebVid
LSMDC_LIST = "lsmdc/LSMDC16_challenge_1000_publictect.csv"


def csv(
    split: str,
    root: Path,
    meta: Path,
    *,
    files: str | dict[str, str],
    path_column: str | int = "path",
    caption_column: str | int = "caption",
    start_column: str | int | None = None,
    end_column: str | int | None = None,
    num_clips: int = 1,
    suffix: str = "",
    sep: str | None = None,
) -> CaptionRecords | SequenceRecords:
    """Any list, in a form of `read_rows`, with columns of captions and of paths below `root`.

    Rows of one path, wherever they stand, are the captions of one record. Columns start and end make a row
    one of a span, in seconds, of its video: rows of one span are then the captions of one record.

    Args:
        files: the list, or one for each split: {"train": ..., "test": ...}; below `meta` unless absolute.
        path_column, caption_column: names, or places counted from 0.
        start_column, end_column: the same; None: those called start and end, where the list has them.
        num_clips: above 1, a record is a video, and a sample that many of its spans that follow one another,
            each with a caption: for sorting. Videos without so many are left out, which is said.
        suffix: added to every path, e.g. ".mp4".
        sep: what separates the columns; by default a tab for .tsv and a comma for anything else.
    """
    path = meta / list_of_split("csv", files, split)
    rows = read_rows(
        path,
        "captions and paths of csv",
        path_column,
        caption_column,
        sep,
        start_column=start_column,
        end_column=end_column,
    )
    ids, captions = grouped(rows.names, rows.texts)
    records = CaptionRecords(root, ids, captions, file_namer(rows, suffix))
    if rows.spans is not None:
        span_of = dict(zip(rows.names, rows.spans, strict=True))
        records.spans = np.array([span_of[name] for name in records.ids])
    return records if num_clips == 1 else sequences(records, num_clips, path)


def sequences(records: CaptionRecords, num_clips: int, path: Path) -> SequenceRecords:
    """Records of the videos of spans, for sorting. path: their list, for messages. Raises ValueError."""
    if records.spans is None:
        raise ValueError(
            f"{path}: num_clips is {num_clips}, and a sample so many spans of a video; but the list has no "
            "columns of their starts and ends (start_column, end_column)"
        )
    try:
        found = SequenceRecords(records, num_clips)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if found.left_out:
        logger.warning(
            "%s: %s left out: none of their spans are %d that follow one another",
            path,
            counted(found.left_out, "videos"),
            num_clips,
        )
    return found


def webvid(split: str, root: Path, meta: Path) -> CaptionRecords:
    """`meta`/webvid_{train,val}.tsv, caption then path without extension; `root`/<split>/<path>.mp4.

    Each row is a record, as in the official release, also where a video has several. Validation takes 1,000
    rows, the same each time.
    """
    folder = "train" if split == "train" else "val"
    what = "captions and paths of webvid"
    table = read_table(meta / f"webvid_{folder}.tsv", what, prepare_hint("webvid"))
    captions, ids = table.column(0), table.column(1)
    if split == "val" and len(table) > VALIDATION_ROWS:
        # the rows of the official release: pandas' sample(1000, random_state=0)
        rows = np.random.RandomState(0).choice(len(table), VALIDATION_ROWS, replace=False)
        captions, ids = [captions[row] for row in rows], [ids[row] for row in rows]
    need_folder(root / folder, f"the {folder} videos of WebVid, <path>.mp4 each")
    return CaptionRecords(root, ids, captions, f"{folder}/{{}}.mp4".format, join=False)


def didemo(split: str, root: Path, meta: Path) -> CaptionRecords:
    """`meta`/didemo/DiDeMo_{train,test}.tsv: caption, all descriptions of a video joined, then path."""
    path = meta / f"didemo/DiDeMo_{'train' if split == 'train' else 'test'}.tsv"
    table = read_table(path, "captions and paths of didemo", prepare_hint("didemo"))
    ids, captions = grouped(table.column(1), table.column(0))
    return CaptionRecords(root, ids, captions)


def lsmdc(split: str, root: Path, meta: Path) -> CaptionRecords:
    """`meta`/lsmdc/LSMDC16_challenge_1000_publictect.csv, first column the clip, last the caption.

    There is no training list. The video is `root`/<film>/<clip>.avi. The list may or may not have a header:
    a clip's name holds its times and so a '.', a header does not.
    """
    if split == "train":
        raise ValueError("lsmdc: no list for the split 'train', only for ['test', 'val']")
    table = read_lsmdc(meta / LSMDC_LIST, prepare_hint("lsmdc"))
    ids, captions = grouped(table.column(0), table.column(-1))
    return CaptionRecords(root, ids, captions, lsmdc_file)


def read_lsmdc(path: Path, hint: str = "") -> Table:
    """LSMDC's list, with or without a header. Raises ValueError for a clip not named by film and times."""
    table = read_table(path, "clips and captions of LSMDC", hint, header=lambda first: "." not in first[0])
    if len(table.names) < 2:
        raise ValueError(
            f"{path} needs a clip in its first column and a caption in its last, separated by tabs; "
            f"it has one column, {table.names}"
        )
    for row, clip in enumerate(table.column(0)):
        if not lsmdc_film(clip):
            raise ValueError(f"{table.where(row)}: the clip {clip!r} is not <film>_<start>-<end>")
    return table


def lsmdc_film(clip: str) -> str:
    """The folder of a clip, 1001_Flight for 1001_Flight_00.41.35.189-00.41.45.534; "" for another form."""
    return clip.partition(".")[0].rpartition("_")[0]


def lsmdc_file(clip: str) -> str:
    """The file of a clip."""
    return f"{lsmdc_film(clip)}/{clip}.avi"


def grouped(ids: Sequence[str], captions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Rows in the order in which their ids come first: the captions of a video together."""
    places: dict[str, int] = {}
    order = np.argsort([places.setdefault(name, len(places)) for name in ids], kind="stable")
    return [ids[row] for row in order], [captions[row] for row in order]
