"""How fast clips of 12 frames come out of video files: each reader's stages, and the whole loader.

    python benchmarks/data_loading.py                                   # generated videos, raw and prepared
    python benchmarks/data_loading.py --data my_videos/ --readers pyav \\
        --workers 4 8 --gpu-rate B/16=450 H/14=85

Clips are read as in training: random frames of the whole video, one random crop, a caption. "clips/core s"
counts the processor time of all processes and threads, so it is the rate of one core that does nothing else.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import numpy as np
import pandas as pd
import torch
from joblib import cpu_count

import CLIP
from benchmarks.common import report
from benchmarks.videos import add_arguments, choose_videos, link_videos
from data_loader import build_dataset, build_loader
from data_loader.collate import Collate
from data_loader.dataset import VideoDataset
from data_loader.video import READERS, read_frames
from data_loader.video.process import keep_freed_memory
from utils.commands import CommandParser
from utils.errors import user_errors

NUM_FRAMES = 12
FASTEST = 150  # clips/s of a worker that there are names for; one that reads more is timed for less long
CAPTION = "a person walks along the beach with a dog while the sun goes down {}"


def open_dataset(videos: Sequence[Path], reader: str, count: int, folder: str) -> VideoDataset:
    """A training set of `count` videos with a caption each, which are the given ones under many names."""
    names = [f"{i:06d}{videos[i % len(videos)].suffix}" for i in range(count)]
    root = Path(tempfile.mkdtemp(dir=folder))
    link_videos(videos, [root / name for name in names])
    listing = root / "videos.csv"
    rows = [(name, CAPTION.format(i)) for i, name in enumerate(names)]
    pd.DataFrame(rows, columns=["path", "caption"]).to_csv(listing, index=False)
    options: dict[str, Any] = {"num_frames": NUM_FRAMES, "mask_ratio": 0.5, "num_patches": 196}
    return build_dataset(
        "csv", "train", root=str(root), files=str(listing), reader=reader, timeout=300, **options
    )


def stage_times(videos: Sequence[Path], reader: str, clips: int, folder: str) -> dict[str, Any]:
    """Processor time in ms that decoding, transforming and collating a clip take, in this process."""
    dataset = open_dataset(videos, reader, len(videos), folder)
    times: dict[str, list[float]] = {"decode": [], "transform": [], "collate": []}
    wall, items = [], []
    for i in range(clips + 1):
        index = i % len(dataset)
        rng = np.random.default_rng(i)
        marks = [time.process_time()]
        start = time.perf_counter()
        frames, _, _ = read_frames(
            dataset.records.path(index), partial(dataset.choose_frames, rng=rng), reader
        )
        wall.append(time.perf_counter() - start)
        marks.append(time.process_time())
        video = dataset.transform(frames, rng)
        marks.append(time.process_time())
        items.append({"video": video, "valid_frames": NUM_FRAMES, "index": index, "id": str(index),
                      "text": [*dataset.records[index].captions], "failures": []})  # fmt: skip
        for name, (a, b) in zip(times, itertools.pairwise(marks), strict=False):
            times[name].append(b - a)
    collate = Collate(CLIP.tokenize)
    collate(items[:1])  # reads the vocabulary
    start = time.process_time()
    collate(items)
    times["collate"] = [(time.process_time() - start) / len(items)]
    # the first clip is a warm-up
    means = {name: 1e3 * statistics.fmean(values[1:] or values) for name, values in times.items()}
    return {
        "decode ms": means["decode"],
        "decode wall ms": 1e3 * statistics.fmean(wall[1:]),
        "transform ms": means["transform"],
        "collate ms": means["collate"],
        "clips/core s": 1e3 / sum(means.values()),
    }


def loader_rate(
    videos: Sequence[Path], reader: str, workers: int, batch_size: int, duration: float, folder: str
) -> dict[str, Any]:
    """Clips a second of the loader that training uses, where a child of each worker decodes."""
    round_of_all = max(1, workers)  # batches; in the first, the workers start
    count = 2 * round_of_all * batch_size + int(FASTEST * round_of_all * duration)
    dataset = open_dataset(videos, reader, count, folder)
    loader = build_loader(dataset, batch_size, train=True, tokenizer=CLIP.tokenize, num_workers=workers)
    iterator, batches = iter(loader), 0
    for _ in range(round_of_all):
        next(iterator)
    start, used = time.perf_counter(), processor_seconds()
    while batches < round_of_all or time.perf_counter() - start < duration:
        if next(iterator, None) is None:
            break
        batches += 1
    seconds, used = time.perf_counter() - start, processor_seconds() - used
    del iterator
    clips = batches * batch_size
    return {"clips/s": clips / seconds, "cores used": used / seconds, "clips/core s": clips / max(used, 1e-9)}


def processor_seconds() -> float:
    """Processor time of this process and all below it that are alive, on Linux."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= grown
    return sum(seconds[pid] for pid in ours if pid in seconds)


def gpu_rates(texts: Sequence[str]) -> dict[str, float]:
    """["B/16=450"] -> {"B/16": 450.0}. Raises ValueError."""
    rates = {}
    for text in texts:
        name, equals, rate = text.partition("=")
        if not equals or not rate.replace(".", "", 1).isdigit() or not float(rate):
            raise ValueError(f"--gpu-rate {text!r}: write NAME=CLIPS_A_SECOND, such as B/16=450")
        rates[name] = float(rate)
    return rates


def installed(readers: Sequence[str], video: Path) -> list[str]:
    """The readers that can be used here; says which cannot."""
    found = []
    for reader in readers:
        try:
            read_frames(video, lambda video: [0], reader)
            found.append(reader)
        except ImportError as error:
            print(f"without {reader}: {str(error).splitlines()[0]}", file=sys.stderr)
    if not found:
        raise ValueError(f"none of the readers {', '.join(readers)} is installed")
    return found


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("python benchmarks/data_loading.py", __doc__)
    add_arguments(parser)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="READER",
                        help="default: all that are installed")  # fmt: skip
    parser.add_argument("--clips", type=int, default=24, help="clips a reader and stage")
    parser.add_argument("--workers", type=int, nargs="*", default=[cpu_count()], metavar="W",
                        help="time the whole loader with so many workers")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=16, help="of the whole loader")
    parser.add_argument("--duration", type=float, default=10, metavar="SECONDS",
                        help="to time the whole loader, a batch a worker at least")  # fmt: skip
    parser.add_argument("--gpu-rate", nargs="+", default=[], metavar="NAME=RATE",
                        help="clips/s that a GPU takes: say how many cores keep it busy")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(1)  # as in a worker
    keep_freed_memory()
    with user_errors(), tempfile.TemporaryDirectory() as folder:
        rates, sets = gpu_rates(args.gpu_rate), choose_videos(args)
        readers = installed(args.readers, next(iter(sets.values()))[0])
        stages, loaders = [], []
        for (name, videos), reader in itertools.product(sets.items(), readers):
            stages.append({"name": f"{name}, {reader}", **stage_times(videos, reader, args.clips, folder)})
            for workers in args.workers:
                figures = loader_rate(videos, reader, workers, args.batch_size, args.duration, folder)
                cores = {f"cores for {gpu}": rate / figures["clips/core s"] for gpu, rate in rates.items()}
                loaders.append({"name": f"{name}, {reader}", "workers": workers, **figures, **cores})
    tables = {"stages, processor time a clip": stages, "whole loader": loaders}
    bytes_of = {name: [path.stat().st_size for path in videos] for name, videos in sets.items()}
    report("data loading", {k: v for k, v in tables.items() if v}, args.json, bytes=bytes_of, gpu_rates=rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
