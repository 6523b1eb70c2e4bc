"""What the builders share: their options, writing a list, and looking for its videos."""

import argparse
import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_loader.video_files import VIDEO_ENDINGS, walk_files
from utils.files import whole_file, write_text
from utils.text import counted


def add_command(
    commands: Any, name: str, build: Callable[[argparse.Namespace], None], text: str, root: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand with the options that all data sets have.

    text: what --help says, its first line the list of subcommands. example: of the arguments.
    """
    text, about = f"{text}\n\n    python -m data_loader.prepare {name} {example}", text.split("\n")[0]
    parser = commands.add_parser(name, help=about, text=text)
    parser.add_argument("--meta", type=Path, default=Path("meta_data"), help="folder to write")
    parser.add_argument("--root", type=Path, default=Path(root), help="folder of the videos")
    parser.set_defaults(build=build)
    return parser


def add_drop_missing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--drop-missing", action="store_true", help="leave videos that are not there out")


class Folder:
    """Which files a tree of folders holds. Each folder is listed once, however many of its files are asked
    for."""

    def __init__(self, root: Path):
        self.root = root
        self.listed: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        """Whether `path`, below the root, is there."""
        folder, _, name = path.rpartition("/")
        if folder not in self.listed:
            try:
                self.listed[folder] = set(os.listdir(self.root / folder))
            except (FileNotFoundError, NotADirectoryError):
                self.listed[folder] = set()
        return name in self.listed[folder]


def find_videos(root: Path, names: Iterable[str]) -> dict[str, str]:
    """The file of each video of a list, as its path below `root`, wherever it lies and whatever its suffix.

    Where several files could be the one, a file of just the name comes first, else the first in order of
    their paths; that is said, as is a folder that cannot be entered.
    """
    by_stem = videos_by_stem(root)
    found = {}
    for name in names:
        candidates = by_stem.get(Path(name).stem, [])
        if candidates:
            found[name] = str(next((c for c in candidates if c.name == Path(name).name), candidates[0]))
            if len(candidates) > 1:
                print(f"{name}: of {', '.join(map(str, candidates))} the list takes {found[name]}")
    return found


def videos_by_stem(root: Path) -> dict[str, list[Path]]:
    """The video files below a folder by their names without suffix, each below it; says what is closed."""
    files, closed = walk_files(root)
    for folder, reason in closed.items():
        print(f"warning: {folder} cannot be entered: {reason}")
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in VIDEO_ENDINGS:
            by_stem.setdefault(file.stem, []).append(file.relative_to(root))
    return by_stem


def report_missing(path: Path, videos: Sequence[str], root: Path) -> list[bool]:
    """Print how many of a list's videos are not below `root`; returns which are there."""
    folder = Folder(root)
    there = [folder.has(video) for video in videos]
    missing = len(there) - sum(there)
    line = f"{path}: {counted(len(videos), 'videos')}, {missing} missing below {root}"
    if missing:
        line += f", e.g. {videos[there.index(False)]}"
    print(line)
    return there


def infer(text: str) -> None:
    """Say where a rule is ours and not known to be the authors'."""
    print(f"our inference, not the authors' word: {text}")


def write_table(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """A tab-separated list with a header."""
    with whole_file(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_json(path: Path, content: Any) -> None:
    write_text(json.dumps(content, ensure_ascii=False), path)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text("".join(f"{line}\n" for line in lines), path)


def one_line(text: str) -> str:
    """A caption for a list of a line each: its tabs and line breaks become spaces."""
    return re.sub(r"\s*[\t\n\r\v\f\0]\s*", " ", text).strip()


def refuse_stale(folder: Path, written: Iterable[Path], others: Iterable[Path], given: str) -> None:
    """ValueError where `others`, lists of an earlier call, would no longer fit what this call writes."""
    stale = sorted(set(others) - set(written))
    if stale:
        raise ValueError(
            f"{', '.join(path.name for path in stale)} in {folder} would no longer fit what is written now: "
            f"{given}, or delete what is there"
        )


def keep(flags: Sequence[bool], *columns: Sequence[Any]) -> list[list[Any]]:
    """The rows whose flag is set."""
    return [[value for value, flag in zip(column, flags, strict=True) if flag] for column in columns]
