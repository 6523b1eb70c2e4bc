"""YT-Temporal: json lines to one transcript a video and the lists of videos."""

import argparse
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_loader.lists import need_file, parse_json
from data_loader.prepare.common import (
    Folder,
    add_command,
    add_drop_missing,
    infer,
    report_missing,
    write_table,
)
from utils.text import counted

TEXT = """YT-Temporal from json lines

The annotations of https://rowanzellers.com/merlot, a line a video: {"info": {"display_id", "duration"},
"subtitles": [{"word", "time"}], "denoised": [{"cleanasr"}]}, plain or gzip. Writes
yttemporal_{train,val}.csv, and for each video ROOT/videos/<subset>/annotations/<id>.json. Videos:
ROOT/videos/<subset>/data/<id>.mp4."""
KEPT = ("info", "subtitles", "denoised")


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "yttemporal", build, TEXT, "data/YTTemporal", "subset_87=yttemporal_87.jsonl.gz"
    )
    parser.add_argument(
        "files", nargs="+", help="json lines, each as <subset>=<file>, e.g. subset_87=yttemporal_87.jsonl.gz"
    )
    parser.add_argument(
        "--val-share", type=float, default=0.001, help="share of the videos kept for validation"
    )
    add_drop_missing(parser)


def build(args: argparse.Namespace) -> None:
    folder = Folder(args.root / "videos")
    names: dict[str, list[str]] = {"train": [], "val": []}
    without_id = repeated = 0
    seen: set[str] = set()
    for item in args.files:
        subset, equals, file = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} names no subset; write e.g. subset_87={item}")
        for _, record in read_json_lines(Path(file)):
            name = video_id(record)
            if name is None:
                without_id += 1
                continue
            video = f"{subset}/data/{name}.mp4"
            if args.drop_missing and not folder.has(video):
                continue
            if video in seen:
                repeated += 1
                continue
            seen.add(video)
            write_transcript(args.root / "videos" / subset / "annotations" / f"{name}.json", record)
            names["val" if is_validation(name, args.val_share) else "train"].append(video)
    if without_id:
        print(f"left out: {counted(without_id, 'lines')} without a video id")
    if repeated:
        print(f"left out: {counted(repeated, 'lines')} of videos that an earlier line has")
    for split, videos in names.items():
        path = args.meta / f"yttemporal_{split}.csv"
        write_table(path, {"Name": videos})
        report_missing(path, videos, args.root / "videos")
    infer("which videos validate: those that a hash of their id picks")


def write_transcript(path: Path, record: dict) -> None:
    """Keep what is read of a record. In ASCII, as the words recognised may hold half characters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: record[key] for key in KEPT if key in record}), encoding="ascii")


def read_json_lines(path: Path, what: str = "annotations of YT-Temporal") -> Iterator[tuple[int, dict]]:
    """(line, object) of a file of json lines. Raises ValueError, naming the line, for what is none."""
    need_file(path, f"{what}, a JSON object a line")
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for line in file:
                number += 1
                if not line.strip():
                    continue
                record = parse_json(line)
                if not isinstance(record, dict):
                    raise ValueError("no JSON object")
                yield number, record
    except ValueError as error:
        raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read behind line {number}: {error}") from error


def video_id(record: dict) -> str | None:
    """The id of a record's video, None where it has none that could be a file's name."""
    info = record.get("info")
    places = [*([info] if isinstance(info, dict) else []), record]
    for key in ("display_id", "id", "video_id"):
        for place in places:
            name = place.get(key)
            if isinstance(name, str) and name and name.isprintable() and Path(name).name == name:
                return name
    return None


def is_validation(name: str, share: float) -> bool:
    """Decided by the id alone, so that adding subsets later moves no video to the other side."""
    return zlib.crc32(name.encode()) < share * 2**32
