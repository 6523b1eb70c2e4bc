"""Something-Something V2 as multiple choice."""

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
)

TEXT = """SSV2-MC from Something-Something V2's labels and validation json

labels.json ({sentence: number}) and validation.json ([{"id", "template", …}]) of
https://www.qualcomm.com/developer/software/something-something-v-2-dataset. Writes ssv2/mc/val.jsonl.
Videos: ROOT/videos/<id>.webm, or .mp4 where that is there."""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "ssv2", build, TEXT, "data/SSV2")
    parser.add_argument("labels", type=Path, help="labels.json")
    parser.add_argument("validation", type=Path, help="validation.json")
    add_drop_missing(parser)


def build(args: argparse.Namespace) -> None:
    options = read_classes(args.labels, "the sentences of Something-Something V2, {sentence: number}")
    place = {sentence: i for i, sentence in enumerate(options)}
    folder = Folder(args.root)
    names, answers = [], []
    for record in read_json(args.validation, "the validation videos of Something-Something V2"):
        try:
            name, template = str(record["id"]), record["template"].replace("[", "").replace("]", "")
            answers.append(place[template])
        except (KeyError, TypeError, AttributeError) as error:
            what = f'"id" and a "template" that {args.labels} lists'
            raise ValueError(f"{args.validation}: {record!r} needs {what}") from error
        names.append(f"{name}.mp4" if folder.has(f"videos/{name}.mp4") else f"{name}.webm")
    path = args.meta / "ssv2/mc/val.jsonl"
    there = report_missing(path, [f"videos/{name}" for name in names], args.root)
    if args.drop_missing:
        names, answers = keep(there, names, answers)
    rows = zip(names, answers, strict=True)
    write_lines(path, (json.dumps({"clip_name": n, "options": options, "answer": a}) for n, a in rows))
    infer(
        f"the options of every video are the {len(options)} sentences of labels.json, with 'something' for "
        "the objects; the authors' sentences may name them"
    )
