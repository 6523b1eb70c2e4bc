"""Action recognition: HMDB-51, UCF-101 and Kinetics-400, classes as texts."""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from data_loader.lists import need_text, prepare_hint, read_json, read_table
from data_loader.records import Record, Records

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


class ClassRecords(Records):
    """Videos of classes, whose texts are `class_names`; a class is a number, from 0, into them."""

    def __init__(
        self, root: Path, ids: Sequence[str], class_names: list[str], file_of: Callable[[str], str] = str
    ):
        super().__init__(root, ids, file_of)
        self.class_names = class_names

    def texts(self, classes: Iterable[int]) -> list[str]:
        return [CLASS_TEXT.format(self.class_names[number]) for number in classes]


class LabelRecords(ClassRecords):
    """Videos of one class each: labels, int64 [videos]."""

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        labels: np.ndarray,
        class_names: list[str],
        file_of: Callable[[str], str] = str,
    ):
        super().__init__(root, ids, class_names, file_of)
        self.labels = labels

    def __getitem__(self, index: int) -> Record:
        label = int(self.labels[index])
        return Record(self.id(index), self.path(index), self.span(index), self.texts([label]), label=label)


class MultiLabelRecords(ClassRecords):
    """Videos of any number of classes each, maybe of none: targets, bool [videos, classes]."""

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        targets: np.ndarray,
        class_names: list[str],
        file_of: Callable[[str], str] = str,
    ):
        super().__init__(root, ids, class_names, file_of)
        self.targets = targets

    def __getitem__(self, index: int) -> Record:
        texts = self.texts(np.flatnonzero(self.targets[index]).tolist())
        return Record(self.id(index), self.path(index), self.span(index), texts or [""])


def hmdb51(split: str, root: Path, meta: Path, *, fold: int = 1) -> LabelRecords:
    """`meta`/hmdb51/prompt/split_{1,2,3}_{train,test}_list.tsv, paths below `root`, labels from 1.

    `fold`: which of the three splits into training and test videos.
    """
    name = f"split_{fold}_{'train' if split == 'train' else 'test'}_list.tsv"
    return LabelRecords(root, *read_labels("hmdb51", meta / "hmdb51/prompt", name, first_label=1))


def ucf101(split: str, root: Path, meta: Path, *, fold: int = 1) -> LabelRecords:
    """`meta`/ucf101/prompt/{train,test}list0{1,2,3}_new.tsv, paths below `root`, labels from 1.

    `fold`: which of the three splits into training and test videos.
    """
    name = f"{'train' if split == 'train' else 'test'}list0{fold}_new.tsv"
    return LabelRecords(root, *read_labels("ucf101", meta / "ucf101/prompt", name, first_label=1))


def k400(split: str, root: Path, meta: Path) -> LabelRecords:
    """`meta`/k400/prompt/kinetics400_{train,val}_list_videos.tsv, <class>/<video>, labels from 0.

    The file is `root`/videos_{train,val}/<video>, .mkv read as .mp4.
    """
    use = "train" if split == "train" else "val"
    name = f"kinetics400_{use}_list_videos.tsv"
    videos, labels, class_names = read_labels("k400", meta / "k400/prompt", name, first_label=0)
    files = [f"videos_{use}/{mkv_as_mp4(video.rpartition('/')[2])}" for video in videos]
    return LabelRecords(root, files, labels, class_names)


def mkv_as_mp4(file: str) -> str:
    return file.removesuffix(".mkv") + ".mp4" if file.endswith(".mkv") else file


def read_labels(
    name: str, folder: Path, list_name: str, first_label: int
) -> tuple[list[str], np.ndarray, list[str]]:
    """Videos, labels from 0, and class names of a data set's list and of the label2id.json beside it.

    The list has two columns, path and label, with or without a header (a header has no number in its second
    cell). first_label: what the list calls the first class.
    """
    hint = prepare_hint(name)
    what = f"the classes of {name}, {{name: number}}"
    class_names = read_classes(folder / "label2id.json", what, hint)
    path = folder / list_name
    table = read_table(
        path,
        f"videos and labels of {name}",
        hint,
        header=lambda first: not (len(first) > 1 and first[1].strip().isdecimal()),
    )
    videos, numbers = table.column(0), table.column(1)
    for row, number in enumerate(numbers):
        if not number.strip().isdecimal():
            raise ValueError(f"{table.where(row)}: the label {number!r} in column 2 is no number")
    listed = [int(number) for number in numbers]
    last_label = first_label + len(class_names) - 1
    if min(listed) < first_label or max(listed) > last_label:
        raise ValueError(
            f"{path} has labels {min(listed)} to {max(listed)}; expected {first_label} to {last_label}, "
            f"for the {len(class_names)} classes of label2id.json"
        )
    if min(listed) > 0 and max(listed) < len(class_names):
        logger.warning(
            "%s: its labels, %d to %d, are taken to count from %d, so that %d is %r",
            *(path, min(listed), max(listed)),
            *(first_label, listed[0], class_names[listed[0] - first_label]),
        )
    numbers_of = {
        plain_name(class_name): number for number, class_name in enumerate(class_names, first_label)
    }
    for row, (video, label) in enumerate(zip(videos, listed, strict=True)):
        folder_name = plain_name(video.rpartition("/")[0].rpartition("/")[2])
        if numbers_of.get(folder_name, label) != label:
            raise ValueError(
                f"{table.where(row)}: {video} has the label {label}, {class_names[label - first_label]!r} in "
                f"label2id.json: do the list and label2id.json belong together?\n{hint}"
            )
    return videos, np.array(listed, dtype=np.int64) - first_label, class_names
