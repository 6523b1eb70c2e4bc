"""The demo: generate its data, pre-train on it, evaluate every task, extract features, print a table.

Each part is one of the repository's own commands, printed before it runs: a list of examples, too.

    bash scripts/demo.sh
    bash scripts/demo.sh --scale 0.05 --output results/quick    # a quick look, which learns little

Run again, it reuses what is there; after an interruption it goes on where it was.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import cpu_count

from data_loader import demo as demo_data
from downstream.report import draw_table, write_json
from trainer.checkpoint import list_checkpoints, read_newest
from trainer.curves import draw_curves
from utils.commands import CommandParser, add_overrides
from utils.config import REPOSITORY, USER_ROOT
from utils.errors import user_errors

ARCH = "TVTSv2_Demo"
Command = tuple[object, ...]  # a script of the repository and its arguments
EVALUATIONS = ("demo_msrvtt", "demo_hmdb51", "demo_ssv2")


@dataclass(frozen=True)
class Demo:
    """Where a demo's data and results are, and how it is trained."""

    data: Path
    results: Path
    seed: int
    scale: float
    overrides: tuple[str, ...]

    def check_results(self) -> None:
        """Raises FileExistsError where the results hold another demo's run: training would go on with it."""
        found = read_newest(self.results)
        if found is None:
            return
        config = found[1]["config"]
        there = {"seed": config["seed"], "data": Path(config["data"]["meta"]).parent.name}
        wanted = {"seed": self.seed, "data": self.data.name}
        different = [f"{key} {there[key]}, not {wanted[key]}" for key in there if there[key] != wanted[key]]
        if different:
            raise FileExistsError(
                f"{self.results} holds a run with {' and '.join(different)}: choose another --output, or "
                "delete the folder"
            )

    def make_data(self) -> None:
        options = ("--root", self.data, "--scale", self.scale)
        print(f"\n$ {spelled(('-m', demo_data.__name__, *options))}", flush=True)
        demo_data.main([*map(str, options)])  # here: another start would take longer than its work

    def train(self) -> float:
        """Pre-train, or go on with it, or find it done; the seconds that it took."""
        begin = time.perf_counter()
        sets = [("yttemporal", "YTTemporal"), ("webvid", "WebVid")]
        entries = json.dumps([{"type": kind, "root": str(self.data / folder)} for kind, folder in sets])
        overrides = [
            f"name={json.dumps(self.results.name)}",
            f"trainer.save_dir={self.results.parent}",
            f"seed={self.seed}",
            f"data.meta={self.data / 'meta_data'}",
            f"data.train={entries}",
            f"data.val={entries}",
            *gpu_settings(),
            *self.overrides,
        ]
        sets_of_options = [part for override in overrides for part in ("--set", override)]
        run("train.py", "--config", "configs/demo.json", "--resume", "auto", *sets_of_options)
        return time.perf_counter() - begin

    @property
    def checkpoint(self) -> Path:
        return list_checkpoints(self.results)[0]

    def evaluate_and_extract(self) -> None:
        """All evaluations and the features, side by side: most of a short one is its start."""
        run_together([*map(self.evaluation, EVALUATIONS), self.sorting(), self.features()])

    def evaluation(self, name: str) -> Command:
        folder = {"demo_msrvtt": "msrvtt", "demo_hmdb51": "hmdb51", "demo_ssv2": "SSV2"}[name]
        return (
            *("test.py", "--dataset", name, "--arch", ARCH, "--checkpoint", self.checkpoint),
            *("--set", f"data.root={self.data / folder}", "--set", f"meta={self.data / 'meta_data'}"),
            *("--output", self.results / "evaluation" / name, "--report", self.results / "pages"),
        )

    def sorting(self) -> Command:
        entries = json.dumps([{"type": "yttemporal", "root": str(self.data / "YTTemporal")}])
        return (
            *("downstream/sorting.py", "--config", "configs/demo.json", "--checkpoint", self.checkpoint),
            *("--set", f"data.meta={self.data / 'meta_data'}", "--set", f"data.val={entries}"),
            *(part for override in self.overrides for part in ("--set", override)),
            *("--output", self.results / "evaluation" / "sorting.json"),
        )

    def features(self) -> Command:
        return (
            *("downstream/feature_extraction.py", self.data / "msrvtt" / "videos" / "all"),
            *("--arch", ARCH, "--checkpoint", self.checkpoint),
            *("--output", self.results / "features.safetensors", "--report", self.results / "pages"),
            "--overwrite",  # those of a checkpoint from before, if the run has gone on since
        )

    def summary(self) -> list[dict]:
        """A row a task: what was measured, and what guessing would give, in percent."""
        retrieval, motion, choice = (
            json.loads((self.results / "evaluation" / name / "results.json").read_text())
            for name in EVALUATIONS
        )
        sorting = json.loads((self.results / "evaluation" / "sorting.json").read_text())
        videos, classes = retrieval["counts"]["videos"], motion["counts"]["classes"]
        options, transcripts = choice["counts"]["options"], sorting["transcripts"]
        in_order = sorting["wholly_in_order"]
        rows = [
            (f"text to video, R@1 among {videos}", first_metric(retrieval, "R1"), 100 / videos),
            (f"transcripts wholly in order, {transcripts}", in_order["own video"], sorting["chance"]),
            ("  … with the tokens of another video", in_order["another video"], sorting["chance"]),
            (f"motion, top-1 of {classes} classes", first_metric(motion, "top1"), 100 / classes),
            (f"order of events, top-1 of {options} options", first_metric(choice, "top1"), 100 / options),
        ]
        return [{"task": task, "percent": value, "chance": chance} for task, value, chance in rows]


def gpu_settings() -> list[str]:
    """What differs on a GPU: float32, as on a CPU, and processes of their own that read while it computes.

    So the figures are close to those of a CPU; what is read does not depend on how many read it.
    """
    if not torch.cuda.is_available():
        return []
    return ["trainer.precision=fp32", f"data.num_workers={min(8, cpu_count() // 2)}"]


def first_metric(result: dict, metric: str) -> float:
    """A metric of the first direction or kind in a results.json."""
    return next(iter(result["metrics"].values()))["plain"][metric]


def run(*command: object) -> None:
    """Run one of the repository's Python commands; a failure ends the demo with its exit status."""
    print(f"\n$ {spelled(command)}", flush=True)
    process = start(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the terminal told the command, too; training saves before it ends
        status = process.wait() or 130
    if status:
        sys.exit(status)


def run_together(commands: Sequence[Command]) -> None:
    """Run several side by side; what one prints is shown, in their order, when it has ended.

    A failure ends the demo with its exit status, and the others.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cpu_count() // len(commands))), **os.environ}
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
        processes = [
            start(command, stdout=output, stderr=subprocess.STDOUT, env=threads)
            for command, output in zip(commands, outputs, strict=True)
        ]
        try:
            for command, process, output in zip(commands, processes, outputs, strict=True):
                print(f"\n$ {spelled(command)}", flush=True)
                status = process.wait()
                output.seek(0)
                print(output.read().decode(errors="replace"), end="", flush=True)
                if status:
                    sys.exit(status)
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            for process in processes:
                process.terminate()  # does nothing to one that has ended
                process.wait()


def spelled(command: Command) -> str:
    return shlex.join(["python", *map(str, command)])


def start(command: Command, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=REPOSITORY, **options)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("bash scripts/demo.sh", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor on the amount of data, and so on the training",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="results (default: results/demo, with the scale unless it is 1 and the seed unless it is 0)",
    )
    add_overrides(parser, "override a key of configs/demo.json")
    args = parser.parse_args(argv)
    data = "demo" if args.scale == 1 else f"demo-x{args.scale:g}"
    name = data if args.seed == 0 else f"{data}-seed{args.seed}"
    results = (args.output or USER_ROOT / "results" / name).resolve()
    demo = Demo((USER_ROOT / "data" / data).resolve(), results, args.seed, args.scale, tuple(args.overrides))
    with user_errors():
        demo.check_results()
        demo.make_data()
    seconds = demo.train()
    demo.evaluate_and_extract()
    curves = draw_curves(results)
    rows = demo.summary()
    write_json(results / "summary.json", rows)
    table = [(row["task"], [f"{row['percent']:.1f}", f"{row['chance']:.1f}"]) for row in rows]
    print(f"\n{draw_table(['%', 'chance'], table)}")
    print(f"\ntraining took {seconds:.0f} s; checkpoint, metrics, features: {results}; curves: {curves}")
    print(f"pages to look at: {results / 'pages' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
