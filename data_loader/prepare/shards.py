"""WebDataset shards from a pre-training set of single files."""

import argparse
import io
import json
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_loader import build_dataset
from data_loader.base import VideoDataset
from data_loader.prepare.common import add_command
from data_loader.shards import Shards, transcript_to_json
from data_loader.video import VideoReadError
from data_loader.yttemporal import YTTemporal

TEXT = """Shards of YT-Temporal or WebVid in the WebDataset form

Packs the videos of a list, in its order, into OUT/{train,val}-<number>.tar: <id>.mp4 and <id>.json with the
caption, or the transcript already aligned. Use them with "format": "webdataset" and "root": OUT in a
config. Videos that are not there are left out, as are those without a usable transcript; a shard that is
there already is kept."""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "shards", build, TEXT, ".")
    parser.add_argument("type", choices=("yttemporal", "webvid"))
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--videos-per-shard", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4, help="shards written at a time (%(default)s)")


def build(args: argparse.Namespace) -> None:
    dataset = build_dataset(args.type, args.split, root=args.root, meta=args.meta)
    args.out.mkdir(parents=True, exist_ok=True)
    size = args.videos_per_shard
    parts = [range(first, min(first + size, len(dataset))) for first in range(0, len(dataset), size)]
    paths = [args.out / f"{args.split}-{number:06d}.tar" for number in range(len(parts))]
    todo = [(path, part) for path, part in zip(paths, parts, strict=True) if not path.exists()]
    left_out = 0
    with ProcessPoolExecutor(args.workers, initializer=use_dataset, initargs=(dataset,)) as pool:
        for left in tqdm(pool.map(write_shard, todo), total=len(todo), unit="shard"):
            left_out += left
    shards = Shards(args.out, args.split)  # makes the index
    print(f"{args.out}: {len(shards)} videos in {len(shards.paths)} shards, {left_out} left out")


def use_dataset(dataset: VideoDataset) -> None:
    """Hand a worker the data set once, not with every shard."""
    global _dataset
    _dataset = dataset


def write_shard(job: tuple[Path, range]) -> int:
    """Write a shard, under another name until it is whole. Returns how many of its videos were left out."""
    (path, indices), dataset = job, _dataset
    unfinished, left_out = path.with_suffix(".unfinished"), 0
    with tarfile.open(unfinished, "w") as tar:
        for index in indices:
            video = dataset.video_path(index)
            try:
                facts = facts_of(dataset, index)
                content = video.read_bytes()
            except (VideoReadError, OSError):
                left_out += 1
                continue
            key = shard_key(dataset.video_id(index), video.suffix)
            add_file(tar, f"{key}{video.suffix}", content)
            add_file(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())
    unfinished.replace(path)
    return left_out


def facts_of(dataset: VideoDataset, index: int) -> dict:
    if isinstance(dataset, YTTemporal):
        return transcript_to_json(dataset.transcript(index))
    return {"caption": dataset.captions[index]}


def shard_key(name: str, suffix: str) -> str:
    """The id as a key: without its suffix, and without '.', where a key would end."""
    folder, slash, file = name.removesuffix(suffix).rpartition("/")
    return folder + slash + file.replace(".", "_")


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
