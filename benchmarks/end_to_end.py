"""Training end to end: train.py's trainer reading generated videos, against its steps with no reading at all.

    python benchmarks/end_to_end.py --arch TVTSv2_B_16 --batch-size 64 --workers 8

For each size of video, raw and after scripts/prepare_videos.sh, it trains on both pre-training sets in their
layouts (symbolic links give a few different videos many names, so the disk's cache holds them). The rate of
the steps alone is that of the same loop on one batch of each set that is there already. One process trains on
all in turn, since most of a start is compilation. Starting weights are random; nothing is validated or saved.
Rates are those that the trainer logs behind the first --warm-up steps, and shown as they come.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import numpy as np
import pandas as pd
from joblib import cpu_count
from torch.utils.data import DataLoader

from benchmarks.common import report
from benchmarks.videos import add_arguments, choose_videos, is_prepared, link_videos
from data_loader.build import build_loaders
from data_loader.loader import JointLoader
from data_loader.video import READERS, open_video
from model import VARIANTS
from train import build_trainer
from utils.commands import CommandParser, add_overrides
from utils.config import load_config
from utils.errors import user_errors
from utils.processes import setup
from utils.schema import PretrainingConfig

SPEECH = "so now we take the pan and put it on the stove then a little oil goes in and you stir it well"
WORDS = SPEECH.split(" ")


def lay_out(folder: Path, videos: Sequence[Path], count: int, seconds: Sequence[float]) -> None:
    """YT-Temporal and WebVid of `count` videos each, as the data loader wants them, from a few files."""
    names = [f"subset_87/data/v{i:06d}.mp4" for i in range(count)]
    link_videos(videos, [folder / "YTTemporal/videos" / name for name in names])
    notes = folder / "YTTemporal/videos/subset_87/annotations"
    notes.mkdir(parents=True)
    for i, name in enumerate(names):
        text = json.dumps(transcript(seconds[i % len(seconds)], i))
        (notes / Path(name).with_suffix(".json").name).write_text(text)
    paths = [f"{i % 100:03d}/{i}" for i in range(count)]
    link_videos(videos, [folder / "WebVid/train" / f"{path}.mp4" for path in paths])
    meta = folder / "meta_data"
    meta.mkdir()
    pd.DataFrame({"Name": names}).to_csv(meta / "yttemporal_train.csv", sep="\t", index=False)
    captions = [f"caption {i}: {' '.join(WORDS[: 8 + i % 8])}" for i in range(count)]
    webvid = pd.DataFrame({"caption": captions, "path": paths})
    webvid.to_csv(meta / "webvid_train.tsv", sep="\t", index=False)


def transcript(seconds: float, seed: int) -> dict[str, Any]:
    """Speech of two and a half words a second, some of them misheard."""
    rng = np.random.default_rng(seed)
    said = [WORDS[k] for k in rng.integers(len(WORDS), size=int(2.5 * seconds))]
    heard = [word[:-1] if rng.random() < 0.1 and len(word) > 2 else word for word in said]
    return {
        "subtitles": [{"word": word, "time": i / 2.5} for i, word in enumerate(heard)],
        "denoised": [{"cleanasr": " ".join(said)}],
        "info": {"duration": seconds},
    }


def overrides(args: argparse.Namespace, data: Path, folder: Path, steps: int) -> list[str]:
    """What a run in a folder of its own sets over its config; --set of the command line comes last."""
    sets = [
        {
            "type": "yttemporal",
            "root": str(data / "YTTemporal"),
            "transcript_cache": str(folder / "transcripts"),
        },
        {"type": "webvid", "root": str(data / "WebVid")},
    ]
    settings = {
        "name": folder.name,
        "arch.type": args.arch,
        "arch.start_from": "random",
        "data.train": sets,
        "data.val": [],
        "data.meta": str(data / "meta_data"),
        "data.batch_size": args.batch_size,
        "data.num_workers": args.workers,
        "data.reader": args.reader,
        "trainer.save_dir": str(folder.parent),
        "trainer.max_steps": args.warm_up + steps,
        "trainer.validate_at_start": False,
        "trainer.tensorboard": False,
        "trainer.log_every_s": args.log_every,
    }
    lines = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]
    return lines + ([f"trainer.device={args.device}"] if args.device else []) + args.overrides


class OneBatch:
    """Stands in for a DataLoader and gives its first batch again and again."""

    def __init__(self, loader: DataLoader):
        self.loader, self.batch = loader, dict[str, Any]()
        self.batch_sampler, self.dataset = loader.batch_sampler, loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict]:
        if not self.batch:
            self.batch = next(iter(self.loader))
        return itertools.repeat(self.batch)


@dataclass(frozen=True)
class Run:
    """One training: its videos, what it sets over the config, its folder, and whether it reads at all."""

    name: str
    overrides: list[str]
    folder: Path
    reads: bool = True

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"


def train_in_turn(config_path: str, runs: Sequence[Run], done: Connection) -> None:
    """The runs one after the other, by one trainer; sends word of each that is over."""
    trainer = None
    for run in runs:
        config = load_config(PretrainingConfig, config_path, run.overrides)
        if trainer is None:
            trainer = build_trainer(config, setup(config.trainer.device))
            trainer._save = lambda: None  # type: ignore[method-assign] # gigabytes, and no part of a step
        else:
            del trainer.train_loader  # ends the workers of the run before
            trainer.train_loader, _ = build_loaders(config, trainer.model, trainer.context)
            trainer.epoch = trainer.global_step = 0
        trainer.config, trainer.run_dir = config, run.folder
        trainer.total_steps = trainer.steps_with(trainer.steps_per_epoch)
        if not run.reads:
            loaders: list[Any] = [OneBatch(loader) for loader in trainer.train_loader.loaders]
            joint = trainer.train_loader
            trainer.train_loader = JointLoader(loaders, joint.names, joint.weights)
        run.folder.mkdir(parents=True, exist_ok=True)
        trainer.train()
        done.send(None)


def results(config_path: str, runs: Sequence[Run]) -> Iterator[Run]:
    """Each run as soon as it is over, of a process of their own. Raises RuntimeError when that fails."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train_in_turn, args=(config_path, runs, sender))
    process.start()
    sender.close()  # so that the end of the process ends the receiving
    try:
        for run in runs:
            receiver.recv()
            yield run
        process.join()
    except EOFError:
        process.join()
        message = f"the training ended with status {process.exitcode}; its messages stand above"
        raise RuntimeError(message) from None
    finally:
        process.terminate()  # does nothing to one that has ended
        process.join()


def rate(metrics: Path, batch_size: int, warm_up: int) -> dict[str, float]:
    """Clips a second and the share of time spent waiting for data, of the log lines after the warm-up.

    A log line covers the steps since the one before. Raises ValueError when none lies behind the warm-up.
    """
    clips = seconds = waited = 0.0
    first = 1
    for row in map(json.loads, metrics.read_text().splitlines()):
        if "clips_per_s" not in row:
            continue
        if first > warm_up:
            steps = row["step"] - first + 1
            clips += steps * batch_size
            seconds += steps * batch_size / row["clips_per_s"]
            waited += row["data_wait"] * steps * batch_size / row["clips_per_s"]
        first = row["step"] + 1
    if not clips:
        raise ValueError(f"{metrics} has no log line behind the warm-up: raise --steps or lower --log-every")
    return {"clips/s": clips / seconds, "data wait, %": 100 * waited / seconds}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("python benchmarks/end_to_end.py", __doc__)
    parser.add_argument("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    config = "configs/dist-yt-web-pt-vit-b-16.json"
    parser.add_argument("-c", "--config", default=config, help="of pre-training")
    parser.add_argument("--batch-size", type=int, default=64, help="samples a process and step")
    workers = max(1, cpu_count() // 2)
    parser.add_argument("--workers", type=int, default=workers, help="for each of the two sets")
    parser.add_argument("--reader", choices=READERS, default="pyav", help="how videos are decoded")
    timed = parser.add_argument_group("how it is timed")
    timed.add_argument("--steps", type=int, default=200, help="optimiser steps timed")
    timed.add_argument(
        "--raw-steps", type=int, help="the same for videos as they are, which are slow to read (--steps)"
    )
    timed.add_argument("--warm-up", type=int, default=60, help="steps before")
    timed.add_argument("--log-every", type=float, default=1, help="seconds between log lines")
    parser.add_argument("--device", help="cuda or cpu (default: a GPU where there is one)")
    add_overrides(parser, "override a config key, in the pure run, too")
    add_arguments(parser)
    timed.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    return parser.parse_args(argv)


def plan(args: argparse.Namespace, sets: Mapping[str, Sequence[Path]], folder: Path) -> list[Run]:
    """Lay the sets out below `folder`, and say what is to be run: first the steps alone."""
    steps = args.warm_up + max(args.steps, args.raw_steps or 0)
    count = args.batch_size * (steps // 2 + 2)  # an epoch does not end meanwhile
    runs = []
    for number, (name, videos) in enumerate(sets.items()):
        data, own = folder / f"data{number}", folder / "runs" / str(number)
        lay_out(data, videos, count, [open_video(path).duration for path in videos])
        raw = not is_prepared(name)
        runs.append(Run(name, overrides(args, data, own, (raw and args.raw_steps) or args.steps), own))
    # The steps alone take the first batches of the last set: prepared videos are read sooner.
    own = folder / "runs" / "alone"
    alone = [*overrides(args, data, own, args.steps), "data.num_workers=1"]
    return [Run("steps alone", alone, own, reads=False), *runs]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    rows: list[dict[str, Any]] = []
    with user_errors(), tempfile.TemporaryDirectory() as where:
        runs = plan(args, choose_videos(args), Path(where))
        for run in results(args.config, runs):
            figures = rate(run.metrics, args.batch_size, args.warm_up)
            share = 100 * figures["clips/s"] / (rows[0] if rows else figures)["clips/s"]
            rows.append({"name": run.name, **figures, "of the steps alone, %": share})
            print(f"{run.name}: {figures['clips/s']:.1f} clips/s, {share:.1f} %", flush=True)
    title = f"training end to end, {args.arch}, batch {args.batch_size}"
    report(f"{title}, {args.reader}, 2 × {args.workers} workers", {"": rows}, args.json, arguments=vars(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
