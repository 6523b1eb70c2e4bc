"""How long a training stands still for a checkpoint: written in its way, and beside it, by a thread.

    python benchmarks/checkpoints.py --arch TVTSv2_H_14 --folder /scratch
    torchrun --nproc_per_node 8 benchmarks/checkpoints.py --arch TVTSv2_H_14 --engine fsdp --folder /scratch

The state is that after a step with gradients of 0. Each way writes `--saves` checkpoints, of which the first
is listed by itself: the memory for the copy is taken then.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from benchmarks import common
from model import VARIANTS, create_model, is_new_parameter
from trainer.checkpoint import save_atomically
from trainer.engine import Engine, build_engine, choose_precision
from trainer.optim import build_optimizer, parameter_groups
from trainer.saving import CheckpointWriter
from trainer.sharded import save_sharded
from utils.commands import CommandParser
from utils.processes import DistContext, leaving_group, setup
from utils.schema import OptimizerConfig


def measure(args: argparse.Namespace, context: DistContext, folder: Path) -> list[dict[str, Any]]:
    """Save in both ways; the figures as plain JSON values."""
    precision = choose_precision("bf16", context.device)
    engine = build_engine(args.engine, create_model(args.arch), context, precision, compiled=False)
    optimizer = build_optimizer(
        parameter_groups(engine.model, is_new_parameter, OptimizerConfig()), OptimizerConfig()
    )
    for parameter in engine.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    def in_the_way(path: Path) -> None:
        if engine.sharded:
            save_sharded(state(engine, optimizer), path, context)
        elif context.is_main:
            save_atomically(state(engine, optimizer), path)
        context.barrier()

    with CheckpointWriter(context, engine.sharded, keep=None, timeout_s=600) as writer:
        rows = []
        for name, save in (
            ("in its way", in_the_way),
            ("beside it", lambda path: writer.save(state(engine, optimizer), path)),
        ):
            stands, whole = [], []
            for number in range(args.saves):
                path = folder / f"{name.split()[0]}-{number}"
                begin = finished(context)
                save(path)
                stands.append(finished(context) - begin)
                writer.wait()
                context.barrier()
                whole.append(finished(context) - begin)
                if context.is_main:
                    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            rows.append(
                {
                    "name": name,
                    "stands_s": round(statistics.median(stands[1:] or stands), 3),
                    "first_stands_s": round(stands[0], 3),
                    "whole_after_s": round(statistics.median(whole), 3),
                    "gib": round(size / 2**30, 2) if context.is_main else None,
                }
            )
    return rows


def state(engine: Engine, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    moments: Any = optimizer.state_dict()
    if engine.sharded:
        moments = get_optimizer_state_dict(engine.model, optimizer)
    return {"state_dict": engine.model.state_dict(), "optimizer": moments}


def finished(context: DistContext) -> float:
    """The time when the device has done its work."""
    if context.device.type == "cuda":
        torch.cuda.synchronize(context.device)
    return time.perf_counter()


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/checkpoints.py", __doc__)
    add = parser.add_argument
    add("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add("--engine", choices=("ddp", "fsdp"), default="ddp", help="how processes share the weights")
    add("--folder", type=Path, help="where to write, for the time being (default: a temporary folder)")
    add("--saves", type=int, default=4, help="of each way")
    add("--device", help="cuda or cpu (default: a GPU where there is one)")
    add("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    context = setup(args.device)
    with leaving_group():
        made = tempfile.mkdtemp(dir=args.folder) if context.is_main else None
        folder = Path(context.broadcast_object(made))
        try:
            rows = measure(args, context, folder)
        finally:
            if context.is_main:
                shutil.rmtree(folder)
    if context.is_main:
        title = f"a training's standstill for a checkpoint, {args.arch}, {args.engine}"
        processes = f"{context.world_size} processes"
        common.report(
            title, {processes: rows}, args.json, arguments={**vars(args), "folder": str(args.folder)}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
