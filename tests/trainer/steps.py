"""What the processes of test_engine.py do: a few training steps a case, a rank on its share of them."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import create_model, is_new_parameter
from model.checkpoint import CheckpointError
from trainer.checkpoint import read_checkpoint, restore
from trainer.engine import Precision, build_engine
from trainer.optim import build_optimizer, build_scheduler, parameter_groups
from trainer.saving import CheckpointWriter
from trainer.sharded import save_sharded
from trainer.step import TrainStep
from utils.processes import DistContext, leaving_group, setup
from utils.schema import LossConfig, OptimizerConfig, PretrainingConfig, SchedulerConfig, TrainerConfig

BATCH = 8
OPTIMIZER = OptimizerConfig(new_lr=1e-3, clip_lr=1e-3)
SCHEDULE = SchedulerConfig(milestones=[], warmup_steps=1)


def batch_of(context: DistContext, seed: int, texts: int) -> dict[str, torch.Tensor]:
    """This rank's share of a batch that is the same on any number of ranks."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 400, (texts, BATCH, 12), generator=g)
    ids[:, :, 9] = 49407  # end of text
    per_rank = BATCH // context.world_size
    mine = slice(context.rank * per_rank, (context.rank + 1) * per_rank)
    batch = {
        "video": torch.randn(BATCH, 3, 3, 64, 64, generator=g)[mine],
        "keep_ind": torch.stack([torch.randperm(16, generator=g)[:8] for _ in range(BATCH)])[mine],
        "text": ids[:, mine].flatten(0, 1),
    }
    return {name: tensor.to(context.device) for name, tensor in batch.items()}


class Shapes(TorchDispatchMode):
    """Notes the shapes of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(x.shape) for x in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(x)}
        return out


def run_case(
    context: DistContext,
    output: Path,
    engine: str = "ddp",
    fsdp: dict[str, Any] | None = None,
    gather: str = "exact",
    accumulate: int = 1,
    max_norm: float | None = None,
    checkpointing: int = 0,
    compiled: bool = False,
    scaled: bool = False,
    number_format: str = "fp32",
    validate: bool = False,
    steps: int = 4,
    load: str | None = None,
    save: str | None = None,
) -> dict[str, Any]:
    """Train two joint steps, or up to `steps` batches; `load` puts a checkpoint in place of the first two.

    `save` writes one there. Beside a sharded one it writes `numbered-…`, where the optimiser's state numbers
    the parameters, as in older checkpoints, and `nan-…`, with NaN in the slice of the last rank.
    """
    torch.manual_seed(1)
    model = create_model(
        "TVTSv2_Demo",
        video_layers=2,
        text_layers=2,
        trained_text_blocks=1,
        activation_checkpointing=checkpointing,
    )
    precision = Precision(number_format, context.device)
    options = {"backend": "eager", "fullgraph": True} if compiled else {}
    spread = build_engine(engine, model, context, precision, compiled, **(fsdp or {}), **options)
    optimizer = build_optimizer(parameter_groups(spread.model, is_new_parameter, OPTIMIZER), OPTIMIZER)
    scheduler = build_scheduler(optimizer, SCHEDULE, steps_per_epoch=4, total_steps=4)
    scaler = torch.amp.GradScaler(context.device.type, enabled=scaled)
    config = PretrainingConfig(
        loss=LossConfig(gather=gather),
        optimizer=replace(OPTIMIZER, max_grad_norm=max_norm),
        trainer=TrainerConfig(accumulate=accumulate),
    )
    step = TrainStep(spread, optimizer, scheduler, scaler, precision, context, config)
    if validate:  # ranks need not call the model equally often; the training that follows must not notice
        with spread.whole(), torch.inference_mode():
            for seed in range(context.rank + 1):
                spread.model(batch_of(context, seed, 4))
    rows, grads, shapes = {}, {}, set()
    if load is not None:
        state = read_checkpoint(output / load)
        try:
            restore(output / load, state, spread.model, optimizer, context)
        except CheckpointError as error:
            return {"refused": context.gather_objects(str(error))}
        scheduler.load_state_dict(state["scheduler"])
    with CheckpointWriter(context, spread.sharded, None, timeout_s=100) as writer:
        for seed, texts in [(0, 4), (1, 1), (2, 4), (3, 1)][0 if load is None else 2 : steps]:
            noted, batch = Shapes(), batch_of(context, seed, texts)
            with contextlib.nullcontext() if compiled else noted:
                losses, norm = step(batch)
            shapes |= noted.seen
            rows[seed] = {name: loss.item() for name, loss in losses.items()} | {"grad_norm": norm.item()}
            if seed == 0:
                grads = {n: whole(p.grad) for n, p in spread.model.named_parameters() if p.grad is not None}
            if seed == 1 and save is not None:
                write(spread, optimizer, scheduler, output / save, context, writer)
    weights = {name: whole(p.detach()) for name, p in spread.model.named_parameters()}
    square = any(shape == (BATCH, BATCH) for shape in shapes)
    return {"rows": rows, "grads": grads, "weights": weights, "full_matrix": square}


def write(
    spread: Any,
    optimizer: Any,
    scheduler: Any,
    path: Path,
    context: DistContext,
    writer: CheckpointWriter,
) -> None:
    state = {
        "state_dict": spread.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "loader": {},
        "epoch": 0,
        "global_step": 2,
    }
    if spread.sharded:
        save_sharded(state, path.with_name(f"numbered-{path.name}"), context)
        state["optimizer"] = get_optimizer_state_dict(spread.model, optimizer)
    writer.save(state, path)  # goes on while the next steps change the weights
    if spread.sharded:
        state["state_dict"]["text_projection"] = bad = state["state_dict"]["text_projection"].clone()
        if context.rank == context.world_size - 1:
            bad.to_local()[-1] = float("nan")
        save_sharded(state, path.with_name(f"nan-{path.name}"), context)


def whole(x: torch.Tensor) -> torch.Tensor:
    return (x.full_tensor() if isinstance(x, DTensor) else x).clone()


def main(arguments: list[str]) -> None:
    """OUT_DIR, CASES.json and DEVICE; cases are {name: settings}. Rank 0 writes OUT_DIR/NAME.pt for each."""
    output, cases, device = Path(arguments[0]), json.loads(Path(arguments[1]).read_text()), arguments[2]
    torch.set_num_threads(1)
    context = setup(device)
    with leaving_group():
        for name, settings in cases.items():
            result = run_case(context, output, **settings)
            if context.is_main:
                torch.save(result, output / f"{name}.pt")
