"""Training throughput over several GPUs on random data, through the engine and the step of the Trainer.

    python benchmarks/scaling.py --arch TVTSv2_B_16 --batch-size 64 --gpus 1,2,4    # and the ratios
    torchrun --nproc_per_node 4 benchmarks/scaling.py --engine fsdp

The batch size is of a GPU (weak scaling). A step is a YT-Temporal batch: forward with the tube mask and four
texts a clip, the contrastive loss over all GPUs and the sorting loss, backward, AdamW. No data is loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch

from benchmarks import common
from benchmarks.timing import add_recomputation
from benchmarks.train_step import random_batch
from model import VARIANTS, create_model, is_new_parameter
from model.flops import train_flops_per_clip
from model.loss import Gather
from trainer.engine import DTYPES, build_engine, choose_precision
from trainer.optim import build_optimizer, build_scheduler, parameter_groups
from trainer.step import TrainStep
from utils.commands import CommandParser
from utils.config import as_dict, load_config
from utils.processes import DistContext, leaving_group, setup
from utils.schema import PretrainingConfig


def measure(args: argparse.Namespace, context: DistContext) -> dict[str, Any]:
    """Train on a random batch; the figures of this number of processes, as plain JSON values."""
    config = load_config(
        PretrainingConfig,
        "configs/dist-yt-web-pt-vit-b-16.json",
        [
            f"trainer.accumulate={args.accumulate}",
            f"loss.gather={args.gather}",
            "optimizer.max_grad_norm=1.0",  # the norm over all slices is part of the step
        ],
    )
    precision = choose_precision(args.precision, context.device)
    torch.manual_seed(0)
    model = create_model(args.arch, activation_checkpointing=args.activation_checkpointing)
    compiled = False if args.no_compile else None
    fsdp = as_dict(config.trainer.fsdp)
    engine = build_engine(args.engine, model, context, precision, compiled, **fsdp)
    groups = parameter_groups(engine.model, is_new_parameter, config.optimizer)
    optimizer = build_optimizer(groups, config.optimizer)
    scheduler = build_scheduler(optimizer, config.lr_scheduler, steps_per_epoch=10**6, total_steps=10**7)
    step = TrainStep(engine, optimizer, scheduler, precision.scaler(), precision, context, config)
    v = model.variant
    frames = args.frames or v.num_frames
    batch = random_batch(v, args.batch_size, frames, args.texts, args.text_tokens, context.device)
    engine.model.train()

    for _ in range(3):  # compiles, tunes and fills the allocator
        losses, _ = step(batch)
    rounds = [timed(step, batch, args.steps, context) for _ in range(args.rounds)]
    seconds = statistics.median(rounds)
    clips = args.batch_size * context.world_size
    flops = train_flops_per_clip(v, frames, v.kept_patches, args.texts, args.text_tokens)
    on_gpu = context.device.type == "cuda"
    return {
        "name": f"{context.world_size} GPUs" if on_gpu else f"{context.world_size} processes",
        "gpus": context.world_size,
        "precision": precision.name,
        "clips_per_s": round(clips / seconds, 3),
        "clips_per_s_per_gpu": round(clips / seconds / context.world_size, 3),
        "ms_per_step": round(1e3 * seconds, 3),
        "spread": round((max(rounds) - min(rounds)) / seconds, 4),
        "model_tflops_per_gpu": round(args.batch_size / seconds * flops / 1e12, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "loss": losses["loss"].item(),
    }


def timed(step: TrainStep, batch: dict[str, torch.Tensor], steps: int, context: DistContext) -> float:
    """Seconds a step, from when all processes begin to when this one's device has done its work."""
    finish(context)
    context.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        step(batch)
    finish(context)
    return (time.perf_counter() - start) / steps


def finish(context: DistContext) -> None:
    if context.device.type == "cuda":
        torch.cuda.synchronize(context.device)


def launch(args: argparse.Namespace, argv: Sequence[str]) -> list[dict[str, Any]]:
    """Run this file on each number of processes in turn, and return what each measured."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        for gpus in args.gpus:
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(gpus)]
            own = [str(Path(__file__).resolve()), *argv, "--gpus", "", "--json", str(file)]
            environment = {
                "OMP_NUM_THREADS": "1",
                # DDP warns that it finds no unused parameters; in training, batches of captions have some
                "TORCH_CPP_LOG_LEVEL": "ERROR",
                **os.environ,
            }
            # What the runs print is for people who run them by themselves.
            subprocess.run(
                [sys.executable, *(torchrun if gpus > 1 else []), *own],
                check=True,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            [of_one_run] = json.loads(file.read_text())["tables"].values()
            rows += of_one_run
            print(f"{rows[-1]['name']}: {rows[-1]['clips_per_s']} clips/s", flush=True)
    return rows


def report(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print a table, and write the figures to `args.json` if it is given."""
    smallest = min(rows, key=lambda row: row["gpus"])
    for row in rows:  # of the throughput that as many times the smallest run would give
        row["efficiency"] = round(row["clips_per_s_per_gpu"] / smallest["clips_per_s_per_gpu"], 4)
    batch = f"batch {args.batch_size} a GPU, {rows[0]['precision']}"
    common.report(f"training, {args.arch}, {args.engine}", {batch: rows}, args.json, arguments=vars(args))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("python benchmarks/scaling.py", __doc__)
    add = parser.add_argument
    add("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add("--engine", choices=("ddp", "fsdp"), default="ddp", help="how processes share the weights")
    add(
        "--gather",
        choices=get_args(Gather),
        default="official",
        help="of embeddings: a config's loss.gather",
    )
    add("--precision", choices=(*DTYPES, "fp8"), default="bf16", help="of the arithmetic")
    add_recomputation(parser)
    add("--no-compile", action="store_true", help="without torch.compile (always so on a CPU)")
    add = parser.add_argument_group("the batch").add_argument
    add("--batch-size", type=int, default=64, help="clips a GPU and step")
    add("--accumulate", type=int, default=1, help="micro-batches of a step")
    add("--frames", type=int, help="frames a clip (default: the variant's)")
    add("--texts", type=int, default=4, help="texts a clip")
    add("--text-tokens", type=int, default=77, help="tokens of the longest text")
    add = parser.add_argument_group("how it is timed").add_argument
    add("--gpus", type=numbers, default=[], metavar="N,N", help="numbers of processes to compare")
    add("--rounds", type=int, default=3, help="of which the median is shown")
    add("--steps", type=int, default=10, help="steps a round")
    add("--device", help="cuda or cpu (default: a GPU where there is one)")
    add("--json", metavar="FILE", help="write the figures to a file, too")
    return parser.parse_args(argv)


def numbers(text: str) -> list[int]:
    """ "1,2,4" -> [1, 2, 4]; "" -> []."""
    return [int(part) for part in text.split(",") if part]


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_args(argv)
    if args.gpus:
        report(args, launch(args, argv))
        return 0
    context = setup(args.device)
    with leaving_group():
        row = measure(args, context)
    if context.is_main:
        report(args, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
