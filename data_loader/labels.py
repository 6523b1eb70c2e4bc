"""Action recognition: HMDB-51, UCF-101 and Kinetics-400, classes as texts."""

import logging
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_loader.base import VideoDataset
from data_loader.lists import Table, need_text, prepare_hint, read_json, read_table
from data_loader.strings import Strings

logger = logging.getLogger(__name__)

CLASS_TEXT = "a person {}"


def read_classes(path: Path, what: str, hint: str = "") -> list[str]:
    """The names of a label2id.json, {name: number}, in the order of their numbers.

    The numbers are 0, 1, 2, … without gaps; where they begin with 1, a warning says that this is taken for
    the first class. Raises FileNotFoundError or ValueError, which name the file.
    """
    ids = read_json(path, what, hint)
    if not isinstance(ids, dict) or not ids:
        raise ValueError(f"{path} must map each class name to its number, found {str(ids)[:60]}")
    names: dict[int, str] = {}
    for name, number in ids.items():
        need_text(name, f"{path}: the class numbered {number}")
        if isinstance(number, str) and number.strip().isdecimal():
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{path} must map each class name to its number; {name!r} has {number!r}")
        if number in names:
            raise ValueError(f"{path} gives the number {number} to both {names[number]!r} and {name!r}")
        names[number] = name
    numbers = sorted(names)
    first = 1 if numbers[0] >= 1 else 0
    if numbers != list(range(first, first + len(names))):
        missing = next(number for number in count(first) if number not in names)
        raise ValueError(
            f"{path} names {len(names)} classes, up to number {numbers[-1]}, but none numbered {missing}; "
            "number them 0, 1, 2, … without gaps"
        )
    if first == 1:
        logger.warning("%s counts from 1: 1, %r, is taken for the first class", path, names[1])
    return [names[number] for number in numbers]


def plain_name(name: str) -> str:
    """A class name without what differs between folders and texts: ApplyEyeMakeup, apply_eye_makeup."""
    return name.replace(" ", "").replace("_", "").lower()


class LabelDataset(VideoDataset):
    """Videos of one class each. `class_names` in label order, `class_texts`, `labels` int64 [videos], from 0.

    The list has two columns, path and label, with or without a header (a header has no number in its second
    cell). An item carries "label", and as "text" the text of its class.
    """

    name = "labels"
    folder = ""  # of the metadata, below `meta`
    first_label = 0  # what the list calls the first class
    lists: ClassVar[dict[str, str]] = {}

    def __init__(self, split: str, *, fold: int = 1, **common):
        """`fold`: which of the data set's splits into training and test videos, where it has several."""
        super().__init__(split, **common)
        self.fold = fold
        self.class_names = self.read_classes()
        self.files, self.labels = self.read_list()

    @property
    def class_texts(self) -> list[str]:
        return [CLASS_TEXT.format(name) for name in self.class_names]

    def list_path(self) -> Path:
        return (
            self.meta
            / self.folder
            / self.lists["train" if self.split == "train" else "test"].format(self.fold)
        )

    def read_classes(self) -> list[str]:
        path = self.meta / self.folder / "label2id.json"
        return read_classes(path, f"the classes of {self.name}, {{name: number}}", prepare_hint(self.name))

    def read_list(self) -> tuple[Strings, np.ndarray]:
        path = self.list_path()
        table = read_table(
            path,
            f"videos and labels of {self.name}",
            prepare_hint(self.name),
            header=lambda first: not (len(first) > 1 and first[1].strip().isdecimal()),
        )
        videos, numbers = table.column(0), table.column(1)
        if not len(table):
            raise ValueError(f"{path} lists no videos")
        for row, number in enumerate(numbers):
            if not number.strip().isdecimal():
                raise ValueError(f"{table.where(row)}: the label {number!r} in column 2 is no number")
        listed = [int(number) for number in numbers]
        first, end = self.first_label, self.first_label + len(self.class_names)
        if min(listed) < first or max(listed) >= end:
            raise ValueError(
                f"{path} has labels {min(listed)} to {max(listed)}; expected {first} to {end - 1}, "
                f"for the {len(self.class_names)} classes of label2id.json"
            )
        if min(listed) > 0 and max(listed) < len(self.class_names):
            logger.warning(
                "%s: its labels, %d to %d, are taken to count from %d, so that %d is %r",
                *(path, min(listed), max(listed), first, listed[0], self.class_names[listed[0] - first]),
            )
        labels = np.array(listed, dtype=np.int64) - first
        self.check_folders(table, videos, labels)
        return Strings(videos), labels

    def check_folders(self, table: Table, videos: list[str], labels: np.ndarray) -> None:
        """ValueError where a video lies in another class's folder: list and label2id.json do not match."""
        classes = {plain_name(name): label for label, name in enumerate(self.class_names)}
        for row, (video, label) in enumerate(zip(videos, labels.tolist(), strict=True)):
            folder = video.rpartition("/")[0].rpartition("/")[2]
            if classes.get(plain_name(folder), label) != label:
                raise ValueError(
                    f"{table.where(row)}: {video} has the label {label + self.first_label}, "
                    f"{self.class_names[label]!r} in label2id.json: do the list and label2id.json belong "
                    f"together?\n{prepare_hint(self.name)}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def video_path(self, index: int) -> Path:
        return self.root / self.files[index]

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        return [CLASS_TEXT.format(self.class_names[self.labels[index]])]

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        return {**super().sample(index, rng), "label": int(self.labels[index])}


class HMDB51(LabelDataset):
    """`meta`/hmdb51/prompt/split_{1,2,3}_{train,test}_list.tsv, paths below `root`, labels from 1."""

    name, folder, first_label = "hmdb51", "hmdb51/prompt", 1
    lists: ClassVar = {"train": "split_{}_train_list.tsv", "test": "split_{}_test_list.tsv"}


class UCF101(LabelDataset):
    """`meta`/ucf101/prompt/{train,test}list0{1,2,3}_new.tsv, paths below `root`, labels from 1."""

    name, folder, first_label = "ucf101", "ucf101/prompt", 1
    lists: ClassVar = {"train": "trainlist0{}_new.tsv", "test": "testlist0{}_new.tsv"}


class Kinetics400(LabelDataset):
    """`meta`/k400/prompt/kinetics400_{train,val}_list_videos.tsv, <class>/<video>, labels from 0.

    The file is `root`/videos_{train,val}/<video>, .mkv read as .mp4.
    """

    name, folder = "k400", "k400/prompt"
    lists: ClassVar = {
        "train": "kinetics400_train_list_videos.tsv",
        "test": "kinetics400_val_list_videos.tsv",
    }

    def video_path(self, index: int) -> Path:
        video = Path(self.files[index].rpartition("/")[2])
        folder = "videos_train" if self.split == "train" else "videos_val"
        return self.root / folder / (video.with_suffix(".mp4") if video.suffix == ".mkv" else video)
