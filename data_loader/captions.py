"""Captions and paths: WebVid, MSR-VTT, DiDeMo, LSMDC, and any list with a caption and a path column
("csv")."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from data_loader.base import VideoDataset
from data_loader.records import (
    Strings,
    first_row,
    need_column,
    need_file,
    need_folder,
    prepare_hint,
    read_json,
    read_lines,
    read_table,
)
from data_loader.safe_pickle import read_index
from data_loader.sampling import sample_frames, window_shifts
from data_loader.video import VideoReadError, read_frames

Pairs = Sequence[tuple[str, str]]  # (name of the video, caption), in the order of the list


class CaptionDataset(VideoDataset):
    """Videos with one or more captions each. Items iterate over videos.

    `names` are the videos' names, `captions` all captions, `caption_video` int64 [captions] the video of
    each. A training item carries one of its video's captions, drawn at random; other items the first.

    With `sliding_window_stride` S > 0 every video is repeated with shifts 0, S, 2S, ...: an item is then one
    (video, shift), its "index" still that of the video, and `len(dataset)` counts windows.
    """

    name = "captions"

    def __init__(self, split: str, *, sliding_window_stride: int = -1, **common):
        super().__init__(split, **common)
        self.set_pairs(self.pairs())
        self.windows = self.find_windows(sliding_window_stride) if sliding_window_stride > 0 else None

    def pairs(self) -> Pairs:
        """Name and caption of every record; captions of the same video follow one another."""
        raise TypeError(f"{type(self).__name__} does not say which captions belong to which videos")

    def video_file_name(self, name: str) -> str:
        """The file of a video below `root`."""
        return name

    def set_pairs(self, pairs: Pairs) -> None:
        """Keep the records in compact arrays."""
        if not pairs:
            raise ValueError(
                f"{self.name} ({self.split}): the list below {self.meta} or {self.root} is empty"
            )
        starts, names = [], []
        for name, group in groupby(range(len(pairs)), key=lambda i: pairs[i][0]):
            names.append(name)
            starts.append(next(group))
        self.names = Strings(names)
        self.captions = Strings(caption for _, caption in pairs)
        self.caption_start = np.array([*starts, len(pairs)], dtype=np.int64)

    @property
    def caption_video(self) -> np.ndarray:
        return np.repeat(np.arange(self.num_videos), np.diff(self.caption_start))

    @property
    def num_videos(self) -> int:
        return len(self.names)

    def __len__(self) -> int:
        return self.num_videos if self.windows is None else len(self.windows)

    def video_path(self, index: int) -> Path:
        return self.root / self.video_file_name(self.names[index])

    def video_id(self, index: int) -> str:
        return self.names[index]

    @property
    def video_paths(self) -> list[Path]:
        return [self.video_path(i) for i in range(self.num_videos)]

    @property
    def video_ids(self) -> list[str]:
        return list(self.names)

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        first, end = self.caption_start[index], self.caption_start[index + 1]
        return [self.captions[rng.integers(first, end) if self.view == "train" else first]]

    # Sliding windows.

    def find_windows(self, stride: int) -> list[tuple[int, int]]:
        """(video, shift) of every window. Opens each video once, for its number of frames."""
        if self.view != "test":
            raise ValueError(f"sliding windows are for evaluation, not for the clips of {self.view!r}")
        with ThreadPoolExecutor(4) as pool:
            shifts = pool.map(lambda i: self.shifts(i, stride), range(self.num_videos))
            return [(i, int(shift)) for i, found in enumerate(shifts) for shift in found]

    def shifts(self, index: int, stride: int) -> Sequence[int]:
        try:
            with self.video_file(index) as path:
                vlen = read_frames(path, lambda vlen: [0], reader=self.reader, timeout=self.timeout)[2]
        except VideoReadError:
            if not self.allow_missing:
                raise
            return [0]  # reported as missing when it is read
        return window_shifts(self.num_frames, vlen, stride)

    def evaluation_item(self, index: int, rng: np.random.Generator) -> dict:
        self.shift = None
        if self.windows is not None:
            index, self.shift = self.windows[index]
        return super().evaluation_item(index, rng)

    def choose_frames(self, vlen: int, rng: np.random.Generator) -> list[int]:
        if self.windows is not None:
            return sample_frames(self.num_frames, vlen, "uniform", shift=self.shift)
        return super().choose_frames(vlen, rng)


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

    def table(self) -> pd.DataFrame:
        path = self.list_path()
        sep = self.sep or ("\t" if path.suffix == ".tsv" else ",")
        return read_table(path, f"captions and paths of {self.name}", self.hint(), sep=sep)

    def hint(self) -> str:
        return "" if self.name == "csv" else prepare_hint(self.name)

    def pairs(self) -> Pairs:
        table = self.table()
        paths = need_column(table, self.path_column, self.list_path())
        captions = need_column(table, self.caption_column, self.list_path())
        # A stable sort by first appearance puts captions of the same video together and keeps the list's
        # order.
        order = np.argsort(pd.factorize(paths)[0], kind="stable")
        return list(zip(paths.to_numpy()[order], captions.to_numpy()[order], strict=True))

    def video_file_name(self, name: str) -> str:
        return name + self.suffix


class WebVid(CsvDataset):
    """`meta`/webvid_{train,val}.tsv, caption then path without extension; `root`/<split>/<path>.mp4.

    Validation takes 1,000 rows, the same each time.
    """

    name = "webvid"

    def __init__(self, split: str, **common):
        files = {"train": "webvid_train.tsv", "val": "webvid_val.tsv", "test": "webvid_val.tsv"}
        super().__init__(split, files=files, caption_column=0, path_column=1, suffix=".mp4", **common)
        self.folder()

    def folder(self) -> str:
        folder = "train" if self.split == "train" else "val"
        need_folder(self.root / folder, f"the {folder} videos of WebVid, <path>.mp4 each")
        return folder

    def table(self) -> pd.DataFrame:
        table = super().table()
        if self.split == "val" and len(table) > 1000:
            return table.sample(1000, random_state=0)
        return table

    def pairs(self) -> Pairs:
        """Every row is a sample of its own, as in the official release."""
        table = self.table()
        captions, paths = (need_column(table, c, self.list_path()) for c in (0, 1))
        return list(zip(paths, captions, strict=True))

    def video_file_name(self, name: str) -> str:
        return f"{'train' if self.split == 'train' else 'val'}/{name}.mp4"


class DiDeMo(CsvDataset):
    """`meta`/didemo/DiDeMo_{train,test}.tsv, caption (all descriptions of a video joined) then path below
    `root`."""

    name = "didemo"

    def __init__(self, split: str, **common):
        files = {
            "train": "didemo/DiDeMo_train.tsv",
            "val": "didemo/DiDeMo_test.tsv",
            "test": "didemo/DiDeMo_test.tsv",
        }
        super().__init__(split, files=files, caption_column=0, path_column=1, **common)


class LSMDC(CsvDataset):
    """`meta`/lsmdc/LSMDC16_challenge_1000_publictect.csv, first column the clip, last the caption; no
    training list.

    The video is `root`/<film>/<clip>.avi. The list may or may not have a header: a clip's name holds its
    times and so a '.', a header does not.
    """

    name = "lsmdc"
    LIST = "lsmdc/LSMDC16_challenge_1000_publictect.csv"

    def __init__(self, split: str, **common):
        files = {"val": self.LIST, "test": self.LIST}
        super().__init__(split, files=files, path_column=0, caption_column=-1, suffix=".avi", **common)

    def table(self) -> pd.DataFrame:
        path, what = self.list_path(), "clips and captions of LSMDC"
        first = first_row(path, what, self.hint())
        return read_table(path, what, self.hint(), header=not (first and "." in first[0]))

    def video_file_name(self, name: str) -> str:
        film = name.partition(".")[0].rpartition("_")[0]
        return f"{film}/{name}.avi"


class MSRVTT(CaptionDataset):
    """`meta`/msrvtt/MSR_VTT.json and lists of videos below `root`; `root`/videos/all/<image_id>.mp4.

    Args:
        cut: which lists. The 1k-A test of the literature is "jsfusion". There the query of a test video is
        the
            caption that jsfusion_val_caption_idx.pkl names, elsewhere the first. Videos are sorted by
            image_id.
    """

    name = "msrvtt"
    LISTS = Path("high-quality/structured-symlinks")
    CUTS: ClassVar = {  # cut: (training list, test list)
        "jsfusion": ("train_list_jsfusion.txt", "val_list_jsfusion.txt"),
        "miech": ("train_list_miech.txt", "test_list_miech.txt"),
        "full-val": ("train_list_full.txt", "val_list_full.txt"),
        "full-test": ("train_list_full.txt", "test_list_full.txt"),
        "val": ("train_list.txt", "val_list.txt"),
        "public_server_val": ("train_list.txt", "public_server_val.txt"),
        "public_server_test": ("train_list.txt", "public_server_test.txt"),
    }

    def __init__(self, split: str, *, cut: str = "jsfusion", **common):
        if cut not in self.CUTS:
            raise ValueError(f"MSR-VTT has no cut {cut!r}; there are {', '.join(self.CUTS)}")
        self.cut = cut
        super().__init__(split, **common)

    def video_file_name(self, name: str) -> str:
        return f"videos/all/{name}.mp4"

    def pairs(self) -> Pairs:
        hint = prepare_hint(self.name)
        need_folder(self.root / "videos/all", "the videos of MSR-VTT, <image_id>.mp4 each")
        list_path = self.root / self.LISTS / self.CUTS[self.cut][self.split != "train"]
        wanted = set(read_lines(list_path, f"the videos of the cut {self.cut!r}", hint))
        captions = self.read_captions(hint)
        unknown = sorted(wanted - captions.keys())
        if unknown:
            raise ValueError(
                f"{len(unknown)} videos of {list_path} have no caption in "
                f"{self.meta / 'msrvtt/MSR_VTT.json'}, e.g. {unknown[0]}"
            )
        if self.split == "train":
            return [(name, caption) for name in sorted(wanted) for caption in captions[name]]
        return list(self.queries(sorted(wanted), captions, hint))

    def read_captions(self, hint: str) -> dict[str, list[str]]:
        path = self.meta / "msrvtt/MSR_VTT.json"
        data = read_json(path, "the annotations of MSR-VTT", hint)
        captions: dict[str, list[str]] = {}
        try:
            for annotation in data["annotations"]:
                captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{path} needs "annotations", each with "image_id" and "caption": {error!r}'
            ) from error
        return captions

    def queries(
        self, names: list[str], captions: dict[str, list[str]], hint: str
    ) -> Iterator[tuple[str, str]]:
        index: dict[str, int] = {}
        if self.cut == "jsfusion":
            path = self.root / self.LISTS / "jsfusion_val_caption_idx.pkl"
            index = read_index(need_file(path, "which caption of each video is its query", hint))
        for name in names:
            number = index.get(name, 0) if self.cut != "jsfusion" else index.get(name)
            if number is None or not 0 <= number < len(captions[name]):
                raise ValueError(f"{path} names caption {number} of {name}, which has {len(captions[name])}")
            yield name, captions[name][number]
