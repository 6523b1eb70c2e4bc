"""HMDB-51, UCF-101 and Kinetics-400."""

import argparse
import re
from pathlib import Path
from typing import Any

from data_loader.labels import read_classes
from data_loader.lists import Table, need_folder, numbered_lines, read_table
from data_loader.prepare.common import (
    add_command,
    add_drop_missing,
    infer,
    keep,
    refuse_stale,
    report_missing,
    write_json,
    write_table,
)

HMDB51 = """HMDB-51 from the folder of its split lists

https://serre.lab.brown.edu/hmdb51.html distributes test_train_splits.rar: a folder of
<class>_test_split<n>.txt. Writes hmdb51/prompt/label2id.json and split_{1,2,3}_{train,test}_list.tsv.
Videos: ROOT/<class>/<name>.avi."""

UCF101 = """UCF-101 from the folder of its split lists

https://www.crcv.ucf.edu/data/UCF101.php distributes UCF101TrainTestSplits-RecognitionTask.zip: classInd.txt
and {train,test}list0<n>.txt. Writes ucf101/prompt/label2id.json and {train,test}list0{1,2,3}_new.tsv.
Videos: ROOT/<class>/<name>.avi."""

K400 = """Kinetics-400 from its csv files

The columns label, youtube_id, time_start, time_end, as https://github.com/cvdfoundation/kinetics-dataset
and the Kinetics site distribute them. Writes k400/prompt/label2id.json and
kinetics400_{train,val}_list_videos.tsv. Videos: ROOT/videos_{train,val}/<youtube_id>_<start>_<end>.mp4,
seconds in six digits, as from CVDF."""


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "hmdb51", build_hmdb51, HMDB51, "data/hmdb51", "testTrainMulti_7030_splits/"
    )
    parser.add_argument("splits", type=Path, help="the folder of split lists")
    parser = add_command(commands, "ucf101", build_ucf101, UCF101, "data/ucf101", "ucfTrainTestlist/")
    parser.add_argument("splits", type=Path, help="the folder ucfTrainTestlist")
    parser = add_command(commands, "k400", build_k400, K400, "data/k400", "--val val.csv --train train.csv")
    parser.add_argument("--val", type=Path, help="val.csv (or validate.csv, test.csv)")
    parser.add_argument("--train", type=Path, help="train.csv, for the linear probe")
    add_drop_missing(parser)


def write_classes(folder: Path, names: list[str], lists: list[str], given: str) -> list[str]:
    """Write label2id.json, and return its classes in the order of their numbers.

    lists: the lists that are written with it. Where others lie beside it, of an earlier call, they keep their
    numbers: its classes stay when `names` are among them, and else it is an error; `given` says what to name
    in one call.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"classes of the same name: {sorted(names)}")
    path = folder / "label2id.json"
    others = set(folder.glob("*.tsv")) - {folder / name for name in lists}
    if others and path.is_file():
        before = read_classes(path, "the classes of an earlier call")
        if set(names) <= set(before):
            return before
        refuse_stale(folder, [], others, given)
    write_json(path, {name: i for i, name in enumerate(names)})
    return names


def build_hmdb51(args: argparse.Namespace) -> None:
    need_folder(args.splits, "the split lists of HMDB-51, <class>_test_split<n>.txt")
    files = {}
    for path in args.splits.glob("*_test_split[123].txt"):
        name, _, number = path.stem.rpartition("_test_split")
        files[name, int(number)] = path
    if not files:
        raise ValueError(f"{args.splits} holds no <class>_test_split<n>.txt, the split lists of HMDB-51")
    folders = sorted({name for name, _ in files})
    numbers = sorted({number for _, number in files})
    folder = args.meta / "hmdb51/prompt"
    names = [name.replace("_", " ") for name in folders]
    lists = [f"split_{n}_{use}_list.tsv" for n in numbers for use in ("train", "test")]
    classes = write_classes(folder, names, lists, "take one folder of all split lists")
    for number in numbers:
        rows: dict[str, list[tuple[str, int]]] = {"0": [], "1": [], "2": []}  # neither, training, test
        for class_folder, name in zip(folders, names, strict=True):
            path = files.get((class_folder, number), args.splits / f"{class_folder}_test_split{number}.txt")
            for line_number, line in numbered_lines(path, "a split"):
                video, _, use = line.rpartition(" ")
                if use not in rows:
                    raise ValueError(f"{path}, line {line_number}: {line!r} is not '<video> <0, 1 or 2>'")
                rows[use].append((f"{class_folder}/{video.strip()}", classes.index(name) + 1))
        write_split(folder / f"split_{number}_train_list.tsv", rows["1"], args.root)
        write_split(folder / f"split_{number}_test_list.tsv", rows["2"], args.root)
    infer("class names are the folders' with spaces for '_'; classes in alphabetical order; column names")


def build_ucf101(args: argparse.Namespace) -> None:
    index = args.splits / "classInd.txt"
    by_number: dict[int, str] = {}  # folder of each class
    for line_number, line in numbered_lines(index, "the classes of UCF-101, '<number> <class>'"):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            raise ValueError(f"{index}, line {line_number}: {line!r} is not '<number> <class>'")
        if by_number.setdefault(int(number), name.strip()) != name.strip():
            raise ValueError(f"{index}, line {line_number}: {number} is {by_number[int(number)]}'s")
    folders = [by_number[number] for number in sorted(by_number)]
    paths = [path for use in ("train", "test") for path in sorted(args.splits.glob(f"{use}list0[123].txt"))]
    folder = args.meta / "ucf101/prompt"
    lists = [f"{path.stem}_new.tsv" for path in paths]
    names = [spoken(name) for name in folders]
    classes = write_classes(folder, names, lists, "take one folder of all split lists")
    labels = {folder: classes.index(name) + 1 for folder, name in zip(folders, names, strict=True)}
    for path in paths:
        rows = []
        for line_number, line in numbered_lines(path, "a split of UCF-101"):
            video = re.sub(r"\s+\d+$", "", line)  # training lists have the label behind it
            label = labels.get(video.partition("/")[0])
            if label is None:
                raise ValueError(f"{path}, line {line_number}: the class of {video} is not in classInd.txt")
            rows.append((video, label))
        write_split(folder / f"{path.stem}_new.tsv", rows, args.root)
    infer(
        "class names are the folders' cut before capitals, in lower case ('apply eye makeup'); column names"
    )


def spoken(name: str) -> str:
    """ApplyEyeMakeup -> apply eye makeup."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def write_split(path: Path, rows: list[tuple[str, int]], root: Path) -> None:
    write_table(path, {"path": [video for video, _ in rows], "label": [label for _, label in rows]})
    report_missing(path, [video for video, _ in rows], root)


def build_k400(args: argparse.Namespace) -> None:
    given = {split: path for split, path in (("train", args.train), ("val", args.val)) if path}
    if not given:
        raise ValueError("name one of the csv files of Kinetics-400: --val val.csv, --train train.csv")
    tables = {split: read_table(path, "videos of Kinetics-400", sep=",") for split, path in given.items()}
    labels = {split: table.column("label") for split, table in tables.items()}
    folder = args.meta / "k400/prompt"
    lists = {split: f"kinetics400_{split}_list_videos.tsv" for split in tables}
    names = sorted({label for column in labels.values() for label in column})
    classes = write_classes(folder, names, list(lists.values()), "name both, --train and --val, in one call")
    numbers = {name: number for number, name in enumerate(classes)}
    for split, table in tables.items():
        videos = kinetics_videos(table)
        path = folder / lists[split]
        there = report_missing(path, [f"videos_{split}/{video}" for video in videos], args.root)
        rows = [f"{label}/{video}" for label, video in zip(labels[split], videos, strict=True)]
        column = [numbers[label] for label in labels[split]]
        if args.drop_missing:
            rows, column = keep(there, rows, column)
        write_table(path, {"path": rows, "label": column})
    infer("class names as in the csv, in alphabetical order; column names")


def kinetics_videos(table: Table) -> list[str]:
    """The files of a csv's rows, <youtube_id>_<start>_<end>.mp4, the seconds in six digits."""
    videos = []
    rows = zip(*(table.column(name) for name in ("youtube_id", "time_start", "time_end")), strict=True)
    for row, (name, start, end) in enumerate(rows):
        try:
            videos.append(f"{name}_{int(float(start)):06d}_{int(float(end)):06d}.mp4")
        except (ValueError, OverflowError) as error:
            where = f"{table.where(row)}: time_start and time_end"
            raise ValueError(f"{where}, {start!r} and {end!r}, are not seconds") from error
    return videos
