"""What fine-tuning brings: retrieval and motion of the demo's world, before and after, over several seeds.

    python benchmarks/finetuning.py --checkpoint results/demo/checkpoint-epoch95.pth --seeds 0 1 2

Each run is train.py with configs/finetune-msrvtt.json or configs/finetune-labels.json, made small for the
demo, and the test of its best epoch, which videos held out of training choose; a finished one stays.
"""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

from tqdm import tqdm

from benchmarks import common
from benchmarks.ablations import folder_of, mean_and_deviation, run_logged
from data_loader import demo as demo_data
from downstream.demo import ARCH, gpu_settings
from utils.commands import CommandParser
from utils.config import REPOSITORY

# Task -> config, data set, the figure before and after, and what is set for so small a world.
RETRIEVAL = (
    {"data.held_out": 0.1, "data.batch_size": 45, "trainer.epochs": 12, "optimizer.new_lr": 4e-4}
    | {"optimizer.clip_lr": 4e-4, "trainer.monitor": "max msrvtt_t2v_R5"}
)  # fmt: skip
MOTION = (
    {"data.held_out": 0.2, "data.batch_size": 16, "trainer.epochs": 20, "optimizer.new_lr": 4e-4}
    | {"optimizer.clip_lr": 4e-4, "trainer.monitor": "max hmdb51_top1"}
)  # fmt: skip
OF_MOTION = ("finetune-labels", "hmdb51", ("accuracy", "top1"), ("accuracy, head", "top1"))
TASKS = {
    "text to video, R@1": (
        *("finetune-msrvtt", "msrvtt", ("text to video", "R1"), ("text to video", "R1")),
        RETRIEVAL,
    ),
    "motion, top-1": (*OF_MOTION, MOTION | {"arch.head_from_texts": ["something {}"]}),
    "motion, head from random": (*OF_MOTION, MOTION),
}
SMALL = {
    "arch.type": ARCH,
    "arch.compile": False,
    "data.num_workers": 0,
    "data.read_timeout": None,
    "data.cache_mb": 2000,
    "lr_scheduler.warmup_steps": 10,
    "trainer.ema_decay": 0.95,
    "trainer.keep_last": 1,
    "trainer.tensorboard": False,
}


def measure(task: str, data: Path, checkpoint: Path, output: Path, tuned: bool, parallel: int = 1) -> float:
    """The task's figure of a checkpoint, in percent."""
    _, name, before, after, _ = TASKS[task]
    if not (output / "results.json").is_file():
        output.mkdir(parents=True, exist_ok=True)
        command = (
            *("test.py", "--dataset", f"demo_{name}", "--arch", ARCH, "--checkpoint", checkpoint),
            *("--set", f"data.root={data / name}", "--set", f"meta={data / 'meta_data'}"),
            *("--output", output),
        )
        run_logged(f"the test of {checkpoint}", command, output / "test.log", parallel)
    way, metric = after if tuned else before
    return json.loads((output / "results.json").read_text())["metrics"][way]["plain"][metric]


def overrides(task: str, data: Path, checkpoint: Path, output: Path, seed: int) -> list[str]:
    """What makes the task's config one for the demo."""
    _, name, _, _, settings = TASKS[task]
    entry = [{"type": name, "root": str(data / name)}]
    settings = {
        **SMALL,
        **settings,
        "name": folder_of(output, task, seed).name,
        "seed": seed,
        "arch.start_from": str(checkpoint),
        "data.meta": str(data / "meta_data"),
        "data.train": entry,
        "data.val": entry,
        "trainer.save_dir": str(output),
    }
    return gpu_settings() + [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def tune(task: str, data: Path, checkpoint: Path, output: Path, seed: int, parallel: int) -> float:
    """Fine-tune, or go on with it, or find it done; the figure of the best epoch."""
    folder = folder_of(output, task, seed)
    folder.mkdir(parents=True, exist_ok=True)
    given = overrides(task, data, checkpoint, output, seed)
    options = (part for override in given for part in ("--set", override))
    command = ("train.py", "--config", f"configs/{TASKS[task][0]}.json", "--resume", "auto", *options)
    run_logged(f"{task!r} with seed {seed}", command, folder / "train.log", parallel)
    figure = measure(task, data, folder / "model_best.pth", folder / "test", True, parallel)
    best = json.loads((folder / "model_best.json").read_text())
    tqdm.write(f"{task}, seed {seed}: {figure:.1f} % ({best['checkpoint']}, {best['value']:.1f} held out)")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/finetuning.py", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the demo's: scripts/demo.sh makes it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument(
        "--data",
        type=Path,
        default=REPOSITORY / "data/demo",
        help="of the demo, made if not there (default: data/demo)",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the demo's data")
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    parser.add_argument(
        "--output",
        type=Path,
        default=REPOSITORY / "results/finetuning",
        help="where runs are kept (default: results/finetuning)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    data, checkpoint, output = (path.resolve() for path in (args.data, args.checkpoint, args.output))
    demo_data.generate(data, scale=args.scale)
    before = {}
    for task, (_, name, *_) in TASKS.items():
        before[task] = measure(task, data, checkpoint, output / f"zero-shot-{name}", tuned=False)
    jobs = [(task, seed) for task in TASKS for seed in args.seeds]
    with ThreadPoolExecutor(args.parallel) as pool:
        done = pool.map(lambda job: tune(job[0], data, checkpoint, output, job[1], args.parallel), jobs)
        figures = dict(zip(jobs, tqdm(done, total=len(jobs), unit="run"), strict=True))
    rows = []
    for task in TASKS:
        after = [figures[task, seed] for seed in args.seeds]
        rows.append(
            {
                "name": task,
                "zero-shot": before[task],
                "fine-tuned": mean_and_deviation(after),
                "each seed": ", ".join(f"{value:.1f}" for value in after),
            }
        )
    common.report("fine-tuning on the demo", {f"seeds {args.seeds}, %": rows}, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
