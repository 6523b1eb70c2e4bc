"""Captions and paths: WebVid, DiDeMo, LSMDC, and any list with a column of each ("csv")."""

from collections.abc import Sequence
from itertools import compress, pairwise
from pathlib import Path

import numpy as np

from data_loader.base import VideoDataset
from data_loader.lists import Table, need_folder, prepare_hint, read_table
from data_loader.strings import Strings

VALIDATION_ROWS = 1000  # of WebVid

Pairs = tuple[Sequence[str], Sequence[str]]  # the video's name and the caption of every record


class CaptionDataset(VideoDataset):
    """Videos with one or more captions each. Items iterate over videos.

    `names` are the videos' names, `captions` all captions, `caption_video` int64 [captions] the video of
    each. A training item carries one of its video's captions, drawn at random; other items the first.
    """

    name = "captions"
    row_is_sample = False

    def __init__(self, split: str, **common):
        super().__init__(split, **common)
        self.set_pairs(*self.pairs())

    def pairs(self) -> Pairs:
        """The video's name and the caption of every record; captions of a video follow one another."""
        raise TypeError(f"{type(self).__name__} does not say which captions belong to which videos")

    def video_file_name(self, name: str) -> str:
        """The file of a video below `root`."""
        return name

    def set_pairs(self, names: Sequence[str], captions: Sequence[str]) -> None:
        """Keep the pairs in compact arrays."""
        if not len(names):
            raise ValueError(
                f"{self.name} ({self.split}): its list, below {self.meta} or {self.root}, is empty"
            )
        changes = np.fromiter((a != b for a, b in pairwise(names)), dtype=bool, count=len(names) - 1)
        if self.row_is_sample:
            changes[:] = True
        first = np.append(True, changes)  # of its video's captions
        self.names = Strings(compress(names, first))
        self.captions = Strings(captions)
        self.caption_start = np.append(np.flatnonzero(first), len(names))

    @property
    def caption_video(self) -> np.ndarray:
        return np.repeat(np.arange(len(self)), np.diff(self.caption_start))

    def __len__(self) -> int:
        return len(self.names)

    def video_path(self, index: int) -> Path:
        return self.root / self.video_file_name(self.names[index])

    def video_id(self, index: int) -> str:
        return self.names[index]

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        first, end = self.caption_start[index], self.caption_start[index + 1]
        return [self.captions[rng.integers(first, end) if self.view == "train" else first]]


class CsvDataset(CaptionDataset):
    """Any list with a header, a column of captions and a column of paths below `root`.

    Args:
        files: the list, or one for each split: {"train": ..., "test": ...}; below `meta` unless absolute.
        path_column, caption_column: names, or places counted from 0.
        suffix: added to every path, e.g. ".mp4".
        sep: what separates the columns; by default a tab for .tsv and a comma for anything else.
    """

    name = "csv"

    def __init__(
        self,
        split: str,
        *,
        files: str | dict[str, str],
        path_column: str | int = "path",
        caption_column: str | int = "caption",
        suffix: str = "",
        sep: str | None = None,
        **common,
    ):
        self.files, self.suffix, self.sep = files, suffix, sep
        self.path_column, self.caption_column = path_column, caption_column
        super().__init__(split, **common)

    def list_path(self) -> Path:
        file = self.files.get(self.split) if isinstance(self.files, dict) else self.files
        if file is None:
            raise ValueError(
                f"{self.name}: no list for the split {self.split!r}, only for {sorted(self.files)}"
            )
        return self.meta / file

    def table(self) -> Table:
        path = self.list_path()
        sep = self.sep or ("\t" if path.suffix == ".tsv" else ",")
        return read_table(path, f"captions and paths of {self.name}", self.hint(), sep=sep)

    def hint(self) -> str:
        return "" if self.name == "csv" else prepare_hint(self.name)

    def pairs(self) -> Pairs:
        table = self.table()
        paths, captions = table.column(self.path_column), table.column(self.caption_column)
        # a stable sort by first appearance: captions of a video come together, videos keep their order
        places: dict[str, int] = {}
        order = np.argsort([places.setdefault(path, len(places)) for path in paths], kind="stable")
        return [paths[i] for i in order], [captions[i] for i in order]

    def video_file_name(self, name: str) -> str:
        return name + self.suffix


class WebVid(CsvDataset):
    """`meta`/webvid_{train,val}.tsv, caption then path without extension; `root`/<split>/<path>.mp4.

    Each row is a sample, as in the official release, also where a video has several. Validation takes 1,000
    rows, the same each time.
    """

    name = "webvid"
    row_is_sample = True

    def __init__(self, split: str, **common):
        files = {"train": "webvid_train.tsv", "val": "webvid_val.tsv", "test": "webvid_val.tsv"}
        self.folder = "train" if split == "train" else "val"
        super().__init__(split, files=files, caption_column=0, path_column=1, suffix=".mp4", **common)
        need_folder(self.root / self.folder, f"the {self.folder} videos of WebVid, <path>.mp4 each")

    def pairs(self) -> Pairs:
        table = self.table()
        captions, paths = table.column(0), table.column(1)
        if self.split != "val" or len(table) <= VALIDATION_ROWS:
            return paths, captions
        # the rows of the official release: pandas' sample(1000, random_state=0)
        rows = np.random.RandomState(0).choice(len(table), VALIDATION_ROWS, replace=False)
        return [paths[i] for i in rows], [captions[i] for i in rows]

    def video_file_name(self, name: str) -> str:
        return f"{self.folder}/{name}{self.suffix}"


class DiDeMo(CsvDataset):
    """`meta`/didemo/DiDeMo_{train,test}.tsv: caption, all descriptions of a video joined, then path."""

    name = "didemo"

    def __init__(self, split: str, **common):
        files = {
            "train": "didemo/DiDeMo_train.tsv",
            "val": "didemo/DiDeMo_test.tsv",
            "test": "didemo/DiDeMo_test.tsv",
        }
        super().__init__(split, files=files, caption_column=0, path_column=1, **common)


class LSMDC(CsvDataset):
    """`meta`/lsmdc/LSMDC16_challenge_1000_publictect.csv, first column the clip, last the caption.

    There is no training list. The video is `root`/<film>/<clip>.avi. The list may or may not have a header:
    a clip's name holds its times and so a '.', a header does not.
    """

    name = "lsmdc"
    LIST = "lsmdc/LSMDC16_challenge_1000_publictect.csv"

    def __init__(self, split: str, **common):
        files = {"val": self.LIST, "test": self.LIST}
        super().__init__(split, files=files, path_column=0, caption_column=-1, suffix=".avi", **common)

    def table(self) -> Table:
        return read_lsmdc(self.list_path(), self.hint())

    def video_file_name(self, name: str) -> str:
        return lsmdc_file(name)


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
