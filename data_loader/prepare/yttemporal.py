"""YT-Temporal: json lines to one transcript a video and the lists of videos."""

import argparse
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_loader.prepare.common import (
    Folder,
    add_command,
    add_drop_missing,
    infer,
    report_missing,
    write_json,
    write_table,
)
from data_loader.records import need_file

TEXT = """YT-Temporal from json lines

The annotations of https://rowanzellers.com/merlot, a line a video: {"info": {"display_id", "duration"},
"subtitles": [{"word", "time"}], "denoised": [{"cleanasr"}]}, plain or gzip. Writes
yttemporal_{train,val}.csv, and for each video ROOT/videos/<subset>/annotations/<id>.json. Videos:
ROOT/videos/<subset>/data/<id>.mp4."""
KEPT = ("info", "subtitles", "denoised")


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "yttemporal", build, TEXT, "data/YTTemporal")
    parser.add_argument(
        "files", nargs="+", help="json lines, each as <subset>=<file>, e.g. subset_87=yttemporal_87.jsonl.gz"
    )
    parser.add_argument(
        "--val-share", type=float, default=0.001, help="share of the videos kept for validation (%(default)s)"
    )
    add_drop_missing(parser)


def build(args: argparse.Namespace) -> None:
    folder, names = Folder(args.root / "videos"), {"train": [], "val": []}
    without_id = 0
    for item in args.files:
        subset, equals, file = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} names no subset; write e.g. subset_87={item}")
        for record in read_json_lines(Path(file)):
            name = video_id(record)
            if name is None:
                without_id += 1
                continue
            video = f"{subset}/data/{name}.mp4"
            if args.drop_missing and not folder.has(video):
                continue
            transcript = {key: record[key] for key in KEPT if key in record}
            write_json(args.root / "videos" / subset / "annotations" / f"{name}.json", transcript)
            names["val" if is_validation(name, args.val_share) else "train"].append(video)
    if without_id:
        print(f"{without_id} lines without a video id were left out")
    for split, videos in names.items():
        path = args.meta / f"yttemporal_{split}.csv"
        write_table(path, {"Name": videos})
        report_missing(path, videos, args.root / "videos")
    infer("which videos validate: those that a hash of their id picks")


def read_json_lines(path: Path) -> Iterator[dict]:
    need_file(path, "annotations of YT-Temporal, a JSON object a line")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number} is no JSON object")
            yield record


def video_id(record: dict) -> str | None:
    info = record.get("info")
    places = [*([info] if isinstance(info, dict) else []), record]
    for key in ("display_id", "id", "video_id"):
        for place in places:
            if isinstance(place.get(key), str):
                return place[key]
    return None


def is_validation(name: str, share: float) -> bool:
    """Decided by the id alone, so that adding subsets later moves no video to the other side."""
    return zlib.crc32(name.encode()) < share * 2**32
