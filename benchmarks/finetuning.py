"""What fine-tuning brings: retrieval and motion of the demo's world, before and after, over several seeds.

    python benchmarks/finetuning.py --checkpoint results/demo/checkpoint-epoch95.pth --seeds 0 1 2

Each run is train.py with configs/finetune-msrvtt.json or configs/finetune-labels.json, made small for the
demo, and the test of its best epoch, which videos held out of training choose; a finished one stays.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

from benchmarks import common
from benchmarks.ablations import mean_and_deviation
from downstream.demo import ARCH, gpu_settings
from utils.commands import CommandParser
from utils.config import REPOSITORY

# Task -> config, data set, the figure before and after, and what is set for so small a world.
TASKS = {
    "text to video, R@1": (
        *("finetune-msrvtt", "msrvtt", ("text to video", "R1"), ("text to video", "R1")),
        {"data.held_out": 0.1, "data.batch_size": 45, "trainer.epochs": 12, "optimizer.new_lr": 4e-4}
        | {"optimizer.clip_lr": 4e-4, "trainer.monitor": "max msrvtt_t2v_R5"},
    ),
    "motion, top-1": (
        *("finetune-labels", "hmdb51", ("accuracy", "top1"), ("accuracy, head", "top1")),
        {"data.held_out": 0.2, "data.batch_size": 16, "trainer.epochs": 20, "optimizer.new_lr": 4e-4}
        | {"optimizer.clip_lr": 4e-4, "trainer.monitor": "max hmdb51_top1"}
        | {"arch.head_from_texts": ["something {}"]},
    ),
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


def run(*command: object) -> None:
    print("$", "python", *command, flush=True)
    subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, check=True)


def measure(task: str, data: Path, checkpoint: Path, output: Path, tuned: bool) -> float:
    """The task's figure of a checkpoint, in percent."""
    _, name, before, after, _ = TASKS[task]
    if not (output / "results.json").is_file():
        run(
            *("test.py", "--dataset", f"demo_{name}", "--arch", ARCH, "--checkpoint", checkpoint),
            *("--set", f"data.root={data / name}", "--set", f"meta={data / 'meta_data'}"),
            *("--output", output),
        )
    way, metric = after if tuned else before
    return json.loads((output / "results.json").read_text())["metrics"][way]["plain"][metric]


def overrides(task: str, data: Path, checkpoint: Path, output: Path, seed: int) -> list[str]:
    """What makes the task's config one for the demo."""
    config, name, _, _, settings = TASKS[task]
    entry = [{"type": name, "root": str(data / name)}]
    settings = {
        **SMALL,
        **settings,
        "name": f"{config}-seed{seed}",
        "seed": seed,
        "arch.start_from": str(checkpoint),
        "data.meta": str(data / "meta_data"),
        "data.train": entry,
        "data.val": entry,
        "trainer.save_dir": str(output),
    }
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()] + gpu_settings()


def tune(task: str, data: Path, checkpoint: Path, output: Path, seed: int) -> Path:
    """Fine-tune, or go on with it, or find it done; the best checkpoint."""
    config = TASKS[task][0]
    given = overrides(task, data, checkpoint, output, seed)
    options = (part for override in given for part in ("--set", override))
    run("train.py", "--config", f"configs/{config}.json", "--resume", "auto", *options)
    return output / f"{config}-seed{seed}" / "model_best.pth"


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
    parser.add_argument(
        "--output",
        type=Path,
        default=REPOSITORY / "results/finetuning",
        help="where runs are kept (default: results/finetuning)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    data, checkpoint, output = (path.resolve() for path in (args.data, args.checkpoint, args.output))
    run("-m", "data_loader.demo", "--root", data, "--scale", args.scale)
    rows = []
    for task in TASKS:
        before = measure(task, data, checkpoint, output / f"zero-shot-{TASKS[task][1]}", tuned=False)
        after = []
        for seed in args.seeds:
            best = tune(task, data, checkpoint, output, seed)
            after.append(measure(task, data, best, best.parent / "test", tuned=True))
        rows.append(
            {
                "name": task,
                "zero-shot": before,
                "fine-tuned": mean_and_deviation(after),
                "each seed": ", ".join(f"{value:.1f}" for value in after),
            }
        )
    common.report("fine-tuning on the demo", {f"seeds {args.seeds}, %": rows}, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
