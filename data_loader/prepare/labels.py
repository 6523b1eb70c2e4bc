"""HMDB-51, UCF-101 and Kinetics-400."""

import argparse
import re
from pathlib import Path
from typing import Any

from data_loader.prepare.common import (
    add_command,
    add_drop_missing,
    infer,
    keep,
    report_missing,
    write_json,
    write_table,
)
from data_loader.records import need_column, need_folder, read_lines, read_table

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
    parser = add_command(commands, "hmdb51", build_hmdb51, HMDB51, "data/hmdb51")
    parser.add_argument("splits", type=Path, help="the folder of split lists")
    parser = add_command(commands, "ucf101", build_ucf101, UCF101, "data/ucf101")
    parser.add_argument("splits", type=Path, help="the folder ucfTrainTestlist")
    parser = add_command(commands, "k400", build_k400, K400, "data/k400")
    parser.add_argument("--val", type=Path, help="val.csv (or validate.csv, test.csv)")
    parser.add_argument("--train", type=Path, help="train.csv, for the linear probe")
    add_drop_missing(parser)


def write_classes(folder: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"classes of the same name: {sorted(names)}")
    write_json(folder / "label2id.json", {name: i for i, name in enumerate(names)})


def build_hmdb51(args: argparse.Namespace) -> None:
    need_folder(args.splits, "the split lists of HMDB-51, <class>_test_split<n>.txt")
    files = {}
    for path in args.splits.glob("*_test_split[123].txt"):
        name, _, number = path.stem.rpartition("_test_split")
        files[name, int(number)] = path
    if not files:
        raise ValueError(f"{args.splits} holds no <class>_test_split<n>.txt, the split lists of HMDB-51")
    classes = sorted({name for name, _ in files})
    folder = args.meta / "hmdb51/prompt"
    write_classes(folder, [name.replace("_", " ") for name in classes])
    for number in sorted({number for _, number in files}):
        rows: dict[str, list[tuple[str, int]]] = {"0": [], "1": [], "2": []}  # neither, training, test
        for label, name in enumerate(classes, start=1):
            lines = read_lines(
                files.get((name, number), args.splits / f"{name}_test_split{number}.txt"), "a split"
            )
            for line in lines:
                video, _, use = line.rpartition(" ")
                if use not in rows:
                    raise ValueError(f"{name}_test_split{number}.txt: {line!r} is not '<video> <0, 1 or 2>'")
                rows[use].append((f"{name}/{video.strip()}", label))
        write_split(folder / f"split_{number}_train_list.tsv", rows["1"], args.root)
        write_split(folder / f"split_{number}_test_list.tsv", rows["2"], args.root)
    infer("class names are the folders' with spaces for '_'; classes in alphabetical order; column names")


def build_ucf101(args: argparse.Namespace) -> None:
    lines = read_lines(args.splits / "classInd.txt", "the classes of UCF-101, '<number> <class>'")
    numbers = {name: int(number) for number, name in (line.split() for line in lines)}
    folder = args.meta / "ucf101/prompt"
    write_classes(folder, [spoken(name) for name in sorted(numbers, key=numbers.__getitem__)])
    for use in ("train", "test"):
        for path in sorted(args.splits.glob(f"{use}list0[123].txt")):
            videos = [line.split()[0] for line in read_lines(path, "a split of UCF-101")]
            unknown = [video for video in videos if video.partition("/")[0] not in numbers]
            if unknown:
                raise ValueError(f"{path}: the class of {unknown[0]} is not in classInd.txt")
            rows = [(video, numbers[video.partition("/")[0]]) for video in videos]
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
    labels = {split: list(need_column(table, "label", given[split])) for split, table in tables.items()}
    classes = sorted({label for column in labels.values() for label in column})
    folder = args.meta / "k400/prompt"
    write_classes(folder, classes)
    for split, table in tables.items():
        columns = [need_column(table, c, given[split]) for c in ("youtube_id", "time_start", "time_end")]
        videos = [f"{name}_{int(a):06d}_{int(b):06d}.mp4" for name, a, b in zip(*columns, strict=True)]
        path = folder / f"kinetics400_{split}_list_videos.tsv"
        there = report_missing(path, [f"videos_{split}/{video}" for video in videos], args.root)
        rows = [f"{label}/{video}" for label, video in zip(labels[split], videos, strict=True)]
        numbers = [classes.index(label) for label in labels[split]]
        if args.drop_missing:
            rows, numbers = keep(there, rows, numbers)
        write_table(path, {"path": rows, "label": numbers})
    infer("class names as in the csv, in alphabetical order; column names")
