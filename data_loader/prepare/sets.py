"""More published sets, from their own annotation files to lists that the types "csv" and "labels" read.

Each split becomes `meta_data`/<set>/<split>.tsv, with the columns path and caption or label (start and end,
too, where the set names pieces of videos), and the classes classes.txt, one a line.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_loader.lists import numbered_lines, read_lines
from data_loader.prepare.common import (
    add_command,
    add_drop_missing,
    find_videos,
    infer,
    one_line,
    report_missing,
    write_lines,
    write_table,
)
from data_loader.prepare.formats import SETS, Row
from utils.text import counted


def add_commands(commands: Any) -> None:
    for name, source in SETS.items():
        where = "anywhere below ROOT, found by their names" if source.by_name else "ROOT/<path in the list>"
        lists = f"Writes {name}/{{{','.join(source.splits)}}}.tsv"
        lists += " and classes.txt" if source.column == "label" else ""
        about = f"{source.about}\n{lists}. Videos: {where}."
        files = [source.shared[0]] if source.shared else []
        files += [f"--{split} {file}" for split, file in source.splits.items() if file]
        parser = add_command(commands, name, partial(build, name), about, f"data/{name}", " ".join(files))
        if source.shared:
            parser.add_argument("shared", type=Path, metavar="FILE", help=source.shared[0])
        for split, file in source.splits.items():
            if file:
                parser.add_argument(f"--{split}", type=Path, help=file)
        parser.add_argument("--only", type=Path, help="a list of ids, one a line: these videos alone")
        add_drop_missing(parser)


def build(name: str, args: argparse.Namespace) -> None:
    source = SETS[name]
    given = {split: getattr(args, split) if file else None for split, file in source.splits.items()}
    asked = [split for split, file in source.splits.items() if not file or given[split]]
    if not asked:
        files = ", ".join(f"--{split} {file}" for split, file in source.splits.items())
        raise ValueError(f"name an annotation file: {files}")
    shared = source.shared[1](args.shared) if source.shared else None
    rows = {split: tidy(source.rows(split, given[split], shared), split, source.column) for split in asked}
    if args.only:
        rows = only(rows, args.only)
    names = dict.fromkeys(row.video for split in rows.values() for row in split)
    if source.by_name:
        found = find_videos(args.root, [f"{name}.mp4" for name in names])
        places = {name: found.get(f"{name}.mp4", f"{name}.mp4") for name in names}
    else:
        places = {name: name for name in names}
    folder = args.meta / name
    if source.column == "label":
        path = folder / "classes.txt"
        classes = source.classes(shared) if source.classes else None
        if classes is None:
            before = read_lines(path, "the classes of an earlier call") if path.exists() else []
            classes = sorted({*before, *(row.text for split in rows.values() for row in split)})
        write_lines(path, classes)
    for split, wanted in rows.items():
        write_list(folder / f"{split}.tsv", wanted, places, source.column, args)
    if source.rule:
        infer(source.rule)


def tidy(rows: Iterable[Row], split: str, column: str) -> list[Row]:
    """Texts in one line; empty captions, and rows that come twice, are left out, and that is said."""
    lines = [row._replace(text=one_line(row.text)) for row in rows]
    kept = [row for row in lines if row.text or column == "label"]
    if len(kept) < len(lines):
        first = next(row for row in lines if not row.text)
        print(
            f"{split}: left out: {counted(len(lines) - len(kept), 'empty captions')}, e.g. of {first.video}"
        )
    once = list(dict.fromkeys(kept))
    if len(once) < len(kept):
        print(f"{split}: left out: {counted(len(kept) - len(once), 'rows')} that come twice")
    return once


def only(rows: Mapping[str, Sequence[Row]], path: Path) -> dict[str, list[Row]]:
    """The rows of the videos that a list names. Raises ValueError for a video without any."""
    there = {row.video for split in rows.values() for row in split}
    wanted = {video: number for number, video in numbered_lines(path, "ids of videos, one a line")}
    for video, number in wanted.items():
        if video not in there:
            raise ValueError(f"{path}, line {number}: {video} is in none of the annotation files given")
    return {name: [row for row in split if row.video in wanted] for name, split in rows.items()}


def write_list(
    path: Path, rows: Sequence[Row], places: dict[str, str], column: str, args: argparse.Namespace
) -> None:
    """Write a split's list, and say how many videos it has, are gone, and how many rows a video has."""
    videos = list(dict.fromkeys(row.video for row in rows))
    if not videos:
        raise ValueError(f"{path} would be empty: the files name no videos for it")
    there = report_missing(path, [places[video] for video in videos], args.root)
    if args.drop_missing:
        present = {video for video, is_there in zip(videos, there, strict=True) if is_there}
        rows = [row for row in rows if row.video in present]
    texts = sum(bool(row.text) for row in rows)
    kept = len({row.video for row in rows})
    if texts != kept:
        print(f"{path}: {counted(texts, f'{column}s')} of {counted(kept, 'videos')}")
    columns: dict[str, Iterable[Any]] = {
        "path": [places[row.video] for row in rows],
        column: [row.text for row in rows],
    }
    if any(row.end is not None for row in rows):
        columns |= {"start": [row.start for row in rows], "end": [row.end for row in rows]}
    write_table(path, columns)
