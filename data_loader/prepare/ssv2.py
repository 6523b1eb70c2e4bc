"""Something-Something V2, as multiple choice and as 174 classes."""

import argparse
import json
from pathlib import Path
from typing import Any

from data_loader.labels import read_classes
from data_loader.lists import read_json
from data_loader.prepare.common import (
    Folder,
    add_command,
    add_drop_missing,
    infer,
    keep,
    report_missing,
    write_lines,
    write_table,
)

TEXT = """SSV2-MC and the 174 classes of Something-Something V2 from its json files

labels.json ({sentence: number}), validation.json and, for probes, train.json ([{"id", "template", …}]) of
https://www.qualcomm.com/developer/software/something-something-v-2-dataset. Writes ssv2/mc/val.jsonl,
ssv2/{train,val}.tsv and classes.txt. Videos: ROOT/videos/<id>.webm, or .mp4 where that is there."""


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "ssv2", build, TEXT, "data/SSV2", "labels.json validation.json --train train.json"
    )
    parser.add_argument("labels", type=Path, help="labels.json")
    parser.add_argument("validation", type=Path, help="validation.json")
    parser.add_argument("--train", type=Path, help="train.json")
    add_drop_missing(parser)


def build(args: argparse.Namespace) -> None:
    options = read_classes(args.labels, "the sentences of Something-Something V2, {sentence: number}")
    folder = Folder(args.root)
    names, answers = listed(args.validation, options, folder, args)
    rows = zip(names, answers, strict=True)
    path = args.meta / "ssv2/mc/val.jsonl"
    write_lines(path, (json.dumps({"clip_name": n, "options": options, "answer": a}) for n, a in rows))
    write_lines(args.meta / "ssv2/classes.txt", options)
    write_labels(args.meta / "ssv2/val.tsv", names, [options[answer] for answer in answers])
    if args.train:
        names, answers = listed(args.train, options, folder, args)
        write_labels(args.meta / "ssv2/train.tsv", names, [options[answer] for answer in answers])
    infer(
        f"the options of every video are the {len(options)} sentences of labels.json, with 'something' for "
        "the objects; the authors' sentences may name them"
    )


def listed(
    path: Path, options: list[str], folder: Folder, args: argparse.Namespace
) -> tuple[list[str], list[int]]:
    """The files of a json's videos, below ROOT/videos, and the place of each sentence among `options`."""
    place = {sentence: i for i, sentence in enumerate(options)}
    names, answers = [], []
    for record in read_json(path, "videos of Something-Something V2"):
        try:
            name, template = str(record["id"]), record["template"].replace("[", "").replace("]", "")
            answers.append(place[template])
        except (KeyError, TypeError, AttributeError) as error:
            what = f'"id" and a "template" that {args.labels} lists'
            raise ValueError(f"{path}: {record!r} needs {what}") from error
        names.append(f"{name}.mp4" if folder.has(f"videos/{name}.mp4") else f"{name}.webm")
    there = report_missing(path, [f"videos/{name}" for name in names], args.root)
    if args.drop_missing:
        names, answers = keep(there, names, answers)
    return names, answers


def write_labels(path: Path, names: list[str], sentences: list[str]) -> None:
    write_table(path, {"path": [f"videos/{name}" for name in names], "label": sentences})
