"""Does it learn what the paper says? The demo with one thing changed at a time, over several seeds.

    python benchmarks/ablations.py --seeds 0 1 2 --parallel 6

Every run is a whole demo (data once, pre-training, evaluation) in a folder of its own below --output; a
finished one is not run again, so another --scale or --set needs another --output. Figures are means over
the seeds and, behind ±, their standard deviation. Runs side by side slow each other down: compare
clips/s with --parallel 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

from joblib import cpu_count
from tqdm import tqdm

from benchmarks import common
from utils.commands import CommandParser, add_overrides
from utils.config import REPOSITORY
from utils.errors import user_errors

WEBVID = '{"type": "webvid", "root": "DATA/WebVid"}'
VIDEOS = '"root": "DATA/YTTemporal/videos"'
# Name -> what differs from configs/demo.json, where both towers learn from random weights; DATA: of the demo.
# The test of order is on YT-Temporal in each. Mixtures: epochs for as many steps as without weights.
ABLATIONS: dict[str, tuple[str, ...]] = {
    "as the demo is": (),
    "without the sorting loss": ("loss.sort_weight=0",),
    "mask ratio 0": ("arch.mask_ratio=0.0",),
    "mask ratio 0.7": ("arch.mask_ratio=0.7",),
    "text tower: last block trained": ("arch.trained_text_blocks=1",),
    "text tower: no block trained": ("arch.trained_text_blocks=0", "arch.freeze_text_embeddings=true"),
    # On a GPU alone, where the demo itself computes in float32.
    "bf16": ("trainer.precision=bf16",),
    "fp8": ("trainer.precision=fp8",),
    "temporal attention from zero": ("arch.temporal_attention_init=zero",),
    "sorting from captioned spans": (
        f'data.train=[{{"type": "csv", {VIDEOS}, "files": "spans_train.tsv", "num_clips": 4}}, {WEBVID}]',
    ),
    "sorting from subtitles": (
        f'data.train=[{{"type": "narrated", {VIDEOS}, "files": "narrated_train.tsv"}}, {WEBVID}]',
    ),
    "mixing 3:1": (
        f'data.train=[{{"type": "yttemporal", "root": "DATA/YTTemporal", "weight": 3}}, {WEBVID}]',
        "trainer.epochs=119",
    ),
    "mixing 1:3": (
        'data.train=[{"type": "yttemporal", "root": "DATA/YTTemporal"}, '
        '{"type": "webvid", "root": "DATA/WebVid", "weight": 3}]',
        "trainer.epochs=48",
    ),
}
FIRST_STEPS = 3  # rows of the log that hold start-up, too


def folder_of(output: Path, name: str, seed: int) -> Path:
    return output / f"{name.replace(' ', '-').replace(':', '')}-seed{seed}"


def claim(output: Path, scale: float, overrides: Sequence[str]) -> None:
    """Make the folder for runs of these options. ValueError if it holds runs of others."""
    wanted, note = {"scale": scale, "set": list(overrides)}, output / "options.json"
    found = json.loads(note.read_text()) if note.is_file() else wanted
    if found != wanted:
        raise ValueError(f"{output} holds runs with {found}, not {wanted}; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(wanted))


def data_of(scale: float) -> Path:
    """The folder of the demo's data, as the demo has it."""
    return REPOSITORY / "data" / ("demo" if scale == 1 else f"demo-x{scale:g}")


def run_demo(name: str, seed: int, args: argparse.Namespace) -> None:
    """One whole demo, unless its summary is there. RuntimeError with the end of its log if it fails."""
    folder = folder_of(args.output, name, seed)
    if (folder / "summary.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "downstream.demo", "--seed", str(seed), "--scale", str(args.scale), "--output", folder]
    for override in (*ABLATIONS[name], *args.overrides):
        command += ["--set", override.replace("DATA", str(data_of(args.scale)))]
    run_logged(f"the demo {name!r} with seed {seed}", command, folder / "demo.log", args.parallel)
    found = [f"{row['percent']:.1f}" for row in json.loads((folder / "summary.json").read_text())]
    tqdm.write(f"{name}, seed {seed}: {', '.join(found)} %")


def run_logged(what: str, command: Sequence[object], log: Path, parallel: int) -> None:
    """Run Python on `command`, one of `parallel` side by side; `log` gets what it says.

    RuntimeError with the end of the log if it fails.
    """
    threads = str(max(1, cpu_count() // parallel))
    with log.open("a") as file:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env={"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-5:])
        raise RuntimeError(f"{what} failed ({log}):\n{end}")


def row_of(output: Path, name: str, seeds: Sequence[int]) -> dict[str, str]:
    """A line of the table, from the summaries and logs of an ablation's runs."""
    folders = [folder_of(output, name, seed) for seed in seeds]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    row = {"name": name}
    for rows in zip(*summaries, strict=True):
        row[rows[0]["task"].strip()] = mean_and_deviation([row["percent"] for row in rows])
    row["clips/s"] = f"{statistics.median(rate for folder in folders for rate in rates(folder)):.0f}"
    return row


def mean_and_deviation(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def rates(folder: Path) -> list[float]:
    """Clips a second of training, as logged every few seconds."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row["clips_per_s"] for row in rows if "clips_per_s" in row]
    return logged[FIRST_STEPS:] or logged


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/ablations.py", __doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--only", nargs="+", choices=ABLATIONS, default=list(ABLATIONS), metavar="NAME",
                        help=f"some of {', '.join(ABLATIONS)} (default: all)")  # fmt: skip
    parser.add_argument("--parallel", type=int, default=1, help="demos side by side")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the demo's length")
    parser.add_argument(
        "--output",
        type=Path,
        default=REPOSITORY / "results/ablations",
        help="where runs are kept (default: results/ablations)",
    )
    add_overrides(parser, "override a config key, in all runs")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    args.output = args.output.resolve()
    with user_errors():
        claim(args.output, args.scale, args.overrides)
    data = ("--root", data_of(args.scale), "--scale", str(args.scale))
    subprocess.run(  # once, before all of them would do it at the same time
        [sys.executable, "-m", "data_loader.demo", *data],
        cwd=REPOSITORY,
        check=True,
    )
    jobs = [(name, seed) for seed in args.seeds for name in args.only]
    with ThreadPoolExecutor(args.parallel) as pool:
        done = pool.map(lambda job: run_demo(job[0], job[1], args), jobs)
        for _ in tqdm(done, total=len(jobs), unit="demo"):
            pass
    rows = [row_of(args.output, name, args.seeds) for name in args.only]
    common.report("ablations on the demo", {f"seeds {args.seeds}, %": rows}, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
