"""Action recognition: HMDB-51, UCF-101 and Kinetics-400, classes as texts."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from data_loader.base import VideoDataset
from data_loader.records import Strings, first_row, need_column, prepare_hint, read_json, read_table

CLASS_TEXT = "a person {}"


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
        ids = read_json(path, f"the classes of {self.name}, {{name: number}}", prepare_hint(self.name))
        try:
            return [name for name, _ in sorted(ids.items(), key=lambda item: int(item[1]))]
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} must map each class name to its number: {error}") from error

    def read_list(self) -> tuple[Strings, np.ndarray]:
        path, what, hint = self.list_path(), f"videos and labels of {self.name}", prepare_hint(self.name)
        first = first_row(path, what, hint)
        table = read_table(path, what, hint, header=not (len(first) > 1 and first[1].strip().isdigit()))
        names, numbers = need_column(table, 0, path), need_column(table, 1, path)
        if not len(table):
            raise ValueError(f"{path} lists no videos")
        wrong = numbers[~numbers.str.strip().str.isdigit()]
        if len(wrong):
            raise ValueError(f"{path}: the label {wrong.iloc[0]!r} in its second column is no number")
        labels = numbers.astype(np.int64).to_numpy() - self.first_label
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ValueError(
                f"{path} has labels {labels.min() + self.first_label} to {labels.max() + self.first_label}; "
                f"expected {self.first_label} to {len(self.class_names) - 1 + self.first_label}, "
                f"for the {len(self.class_names)} classes of label2id.json"
            )
        return Strings(names), labels

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
