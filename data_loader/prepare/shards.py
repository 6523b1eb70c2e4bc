"""WebDataset shards from a pre-training set of single files."""

import argparse
import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_loader import build_dataset
from data_loader.failures import Failure
from data_loader.prepare.common import add_command
from data_loader.records import Records
from data_loader.registry import SHARDED
from data_loader.shard_index import index_path, load_index
from data_loader.shard_texts import describe
from data_loader.shards import key_of
from data_loader.video import VideoReadError
from data_loader.yttemporal import NarratedRecords
from utils.commands import add_overrides
from utils.config import ConfigError, overridden
from utils.files import whole_file
from utils.schema import TrainingSetConfig
from utils.text import counted

TEXT = """Shards of a training set in the WebDataset form

Packs the videos of a list, in its order, into OUT/{train,val}-<number>.tar: <id>.mp4 and <id>.json with the
captions, the span, the captioned spans of a sorting set, or the transcript already aligned. What a set of the
config has beside its root (files, num_clips, …) is --set KEY=VALUE. Use the shards with the same "type",
"format": "webdataset" and "root": OUT in a config; validation needs shards of its own, made with --split val.
Videos that are not there are left out and counted, as are those without a usable transcript. The same
command again goes on where it was stopped, and makes those shards anew whose rows of the list, captions,
transcripts or videos have changed."""

MADE_OF = "data_loader.prepare shards, made of "  # a shard's comment: this and the digest of its sources


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "shards", build, TEXT, ".", "webvid shards/ --split val --root data/WebVid"
    )
    parser.add_argument("type", choices=tuple(SHARDED), help="which set, or the type of a list of your own")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="which list")
    add_overrides(parser, "an option of the set, again for each")
    parser.add_argument("--videos-per-shard", type=int, default=1000, help="how many a file holds")
    parser.add_argument("--workers", type=int, default=4, help="shards written at a time")


def build(args: argparse.Namespace) -> None:
    for option in ("videos_per_shard", "workers"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1")
    options = set_options(args)
    records = build_dataset(options.pop("type"), args.split, **options).records
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = list(plan(records, args.out, args.split, args.videos_per_shard, args.type))
    remove_others(args.out, args.split, {job.path for job in jobs})
    kept, left_out = 0, list[Failure]()
    with ProcessPoolExecutor(args.workers, initializer=keep_records, initargs=(records,)) as pool:
        for failures in tqdm(pool.map(write_shard, jobs), total=len(jobs), unit="shard"):
            kept += failures is None
            left_out += failures or []
    if left_out:
        print("left out of the shards written now:" + "".join(summary(left_out)))
    paths = [job.path for job in jobs if job.path.exists()]
    if not paths:
        raise ValueError(f"none of the {counted(len(records), 'videos')} could be packed; see above why")
    index = load_index(paths, index_path(args.out, args.split))
    number = len(index.shard)
    packed = f"{counted(number, 'videos')} in {counted(len(paths), 'shards')}"
    already = f" ({kept} there already)" if kept else ""
    print(f"{args.out}: {packed}{already}, {len(records) - number} left out")
    again = len(records) - len({records.path(index) for index in range(len(records))})
    if again:
        print(f"{counted(again, 'records')} share a file with another: it lies in the shards once for each")


def set_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `build_dataset` is to be called with: the set as a training config would describe it."""
    entry = TrainingSetConfig(type=args.type, root=str(args.root), meta=str(args.meta))
    options = overridden(entry, args.overrides).options()
    for key, value in {"format": None, **entry.options()}.items():
        if options.get(key) != value:
            raise ConfigError(f"--set {key}={options[key]}: it is no option of the set's own")
    return options


def summary(failures: list[Failure]) -> Iterator[str]:
    """A line for each of the most frequent reasons."""
    counts = Counter(failure.reason for failure in failures)
    for reason, number in counts.most_common(10):
        example = next(failure.path for failure in failures if failure.reason == reason)
        yield f"\n  {number}: {reason}, e.g. {example}"


@dataclass(frozen=True)
class Job:
    """A shard to write: its samples' places in the data set, and their keys."""

    path: Path
    indices: range
    keys: list[str]


def plan(records: Records, out: Path, split: str, size: int, kind: str) -> Iterator[Job]:
    occurrences: Counter[str] = Counter()
    for number, first in enumerate(range(0, len(records), size)):
        indices, keys = range(first, min(first + size, len(records))), []
        for index in indices:
            name = records.id(index)
            if kind == "yttemporal":  # which calls videos by their files, see NamedByFile
                name = name.removesuffix(records.path(index).suffix)
            occurrences[name] += 1
            keys.append(key_of(name, occurrences[name]))
        yield Job(out / f"{split}-{number:06d}.tar", indices, keys)


def remove_others(out: Path, split: str, planned: set[Path]) -> None:
    """Remove what this command made before and is no longer needed: read too, it would double samples.

    Raises ValueError for shards that it has not made.
    """
    there = {path: made_of(path) for path in out.glob(f"{split}-*.tar")}
    foreign = sorted(path for path, digest in there.items() if digest is None)
    if foreign:
        raise ValueError(
            f"{foreign[0]} and {counted(len(foreign) - 1, 'more shards')} were not written by this version "
            "of this command; take them away, or name another folder"
        )
    for path in there.keys() - planned:
        print(f"{path} belongs to an earlier list or size of shards and is removed")
        path.unlink()


def made_of(path: Path) -> str | None:
    """The digest of what a shard was made of; None for one of another program, or none at all."""
    try:
        with tarfile.open(path, "r:") as tar:
            comment = tar.pax_headers.get("comment", "")
    except (OSError, tarfile.TarError):
        return None
    found = re.fullmatch(re.escape(MADE_OF) + "([0-9a-f]{64})", comment)
    return found and found[1]


_records: Records  # of a worker


def keep_records(records: Records) -> None:
    """Hand a worker the records once, not with every shard."""
    global _records
    _records = records


def write_shard(job: Job) -> list[Failure] | None:
    """Write a shard; None where it is there and made of the same sources. Returns the videos left out.

    Where those are all, there is none.
    """
    digest = sources(_records, job)
    if job.path.exists() and made_of(job.path) == digest:
        return None
    failures = []
    comment = {"comment": MADE_OF + digest}
    with (
        whole_file(job.path) as unfinished,
        tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT, pax_headers=comment) as tar,
    ):
        for index, key in zip(job.indices, job.keys, strict=True):
            video = _records.path(index)
            try:
                metadata = describe(_records[index])
                content = video.read_bytes()
            except VideoReadError as error:
                failures.append(Failure.of(error))
            except OSError as error:
                failures.append(Failure(str(video), error.strerror or str(error)))
            else:
                add_file(tar, f"{key}{video.suffix}", content)
                add_file(tar, f"{key}.json", json.dumps(metadata, ensure_ascii=False).encode())
    if len(failures) == len(job.indices):
        job.path.unlink()
    return failures


def sources(records: Records, job: Job) -> str:
    """A digest of all that goes into a shard: names, captions, and the state of its files."""
    digest = hashlib.sha256()
    for index, key in zip(job.indices, job.keys, strict=True):
        if isinstance(records, NarratedRecords):
            text: object = file_state(records.transcript_path(index))
        else:
            record = records[index]
            whole = record.span is None and not record.pieces
            text = record.captions if whole else describe(record)
        digest.update(repr((key, text, file_state(records.path(index)))).encode())
    return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
