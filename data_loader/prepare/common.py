"""What the builders share: their options, writing a list, and looking for its videos."""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd


def add_command(
    commands: Any, name: str, build: Callable[[argparse.Namespace], None], description: str, root: str
) -> argparse.ArgumentParser:
    """A subcommand with the options that all data sets have."""
    parser = commands.add_parser(
        name,
        help=description.split("\n")[0],
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--meta", type=Path, default=Path("meta_data"), help="folder to write (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path(root), help="folder of the videos (%(default)s)")
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


def find_by_stem(root: Path) -> dict[str, str]:
    """Every file below `root`: its name without suffix -> its path below root."""
    found = {}
    for folder, _, files in os.walk(root):
        for file in files:
            path = Path(folder, file)
            found[path.stem] = str(path.relative_to(root))
    return found


def report_missing(path: Path, videos: Sequence[str], root: Path) -> list[bool]:
    """Print how many of a list's videos are not below `root`; returns which are there."""
    folder = Folder(root)
    there = [folder.has(video) for video in videos]
    missing = len(there) - sum(there)
    line = f"{path}: {len(videos)} videos, {missing} missing below {root}"
    if missing:
        line += f", e.g. {videos[there.index(False)]}"
    print(line)
    return there


def infer(text: str) -> None:
    """Say where a rule is ours and not known to be the authors'."""
    print(f"our inference, not the authors' word: {text}")


def write_table(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """A tab-separated list with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(dict(columns)).to_csv(path, sep="\t", index=False)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def keep(flags: Sequence[bool], *columns: Sequence[Any]) -> list[list[Any]]:
    """The rows whose flag is set."""
    return [[value for value, flag in zip(column, flags, strict=True) if flag] for column in columns]
