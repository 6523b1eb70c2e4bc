"""What a checkpoint holds of a trainer, and a trainer put where a checkpoint left off."""

import logging
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainer.checkpoints import list_checkpoints, read_checkpoint, read_newest
from trainer.optim import build_scheduler
from trainer.sharded import restore
from utils.config import as_dict, resolve_path

if TYPE_CHECKING:
    from trainer.trainer import Trainer

logger = logging.getLogger(__name__)

# What a person may set between two parts of a run; the config decides, not the checkpoint.
SETTINGS_OF_A_GROUP = ("lr", "initial_lr", "weight_decay", "betas", "eps")


def collect_state(trainer: "Trainer") -> dict[str, Any]:
    """Everything that a later process needs to go on as if never interrupted. Every rank has to take part."""
    return {
        "arch": trainer.config.arch.type,
        "epoch": trainer.epoch,
        "loader": trainer.train_loader.state_dict(),
        "global_step": trainer.global_step,
        "steps_per_epoch": trainer.steps_per_epoch,
        "state_dict": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "random_states": trainer.context.gather_objects(random_state(trainer.context.device)),
        "world_size": trainer.context.world_size,
        "config": as_dict(trainer.config),
    }


def resume(trainer: "Trainer", source: str) -> Path | None:
    """Go on from a checkpoint: a path, or "auto" for the newest whole one of this run (None if none).

    The checkpoint says how far the run is: weights, the optimiser's moments, position in the epoch, random
    states. The config says how to go on: learning rates, their schedule, decay and whatever else was set
    differently this time; what differs is logged. With an unchanged config on as many processes, the run goes
    on to the bit as if it had not been interrupted; on another number of processes, with the samples of the
    epoch that are not seen yet, and as far in the schedule as the share of the epochs done says.
    """
    found = trainer.context.broadcast_object(_choose(trainer, source) if trainer.context.is_main else None)
    if found is None:
        logger.info("nothing to resume in %s: starting anew", trainer.run_dir)
        return None
    path = Path(found)
    state = read_checkpoint(path)
    _load_tensors(trainer, path, state)
    trainer.scaler.load_state_dict(state["scaler"])
    if state["world_size"] == trainer.context.world_size:
        set_random_state(state["random_states"][trainer.context.rank], trainer.context.device)
    trainer.train_loader.load_state_dict(state["loader"])
    trainer.epoch, trainer.global_step = state["epoch"], state["global_step"]
    _position_schedule(trainer)
    where = f"epoch {trainer.epoch}, joint step {trainer.train_loader.step}; step {trainer.global_step}"
    logger.info("resumed from %s: %s", path, where)
    for line in changes(state["config"], as_dict(trainer.config)):
        logger.info("set differently from the checkpoint: %s", line)
    return path


def _choose(trainer: "Trainer", source: str) -> str | None:
    """The checkpoint's path, chosen by rank 0 for all: they might not see the same files."""
    if source == "auto":
        found = read_newest(trainer.run_dir)
        return None if found is None else str(found[0])
    path = resolve_path(source)
    read_checkpoint(path)
    names = [each.name for each in list_checkpoints(trainer.run_dir)]
    if path.resolve().parent == trainer.run_dir.resolve() and path.name in names:
        further = names[: names.index(path.name)]
        if further:  # they would pass for the newest ones, and the new ones be removed as old
            raise FileExistsError(
                f"{trainer.run_dir} holds checkpoints beyond {path.name}: {', '.join(further)}. Move them "
                "away, or give the new run a name of its own (--set name=…)"
            )
    return str(path)


def _load_tensors(trainer: "Trainer", path: Path, state: Mapping[str, Any]) -> None:
    optimizer = trainer.optimizer
    wanted = [{key: group[key] for key in SETTINGS_OF_A_GROUP} for group in optimizer.param_groups]
    restore(path, state, trainer.model, optimizer)
    for group, settings in zip(optimizer.param_groups, wanted, strict=True):
        group.update(settings)
        group["lr"] = settings["initial_lr"]  # from which a schedule starts


def _position_schedule(trainer: "Trainer") -> None:
    """Let learning rate and end of the run follow from the epochs done, not from the steps.

    Another number of ranks, or another batch size, makes epochs of other lengths. Where `max_steps` ends the
    run before its epochs do, a schedule that ends with the run counts steps, as `max_steps` does: with a
    position in epochs it would be past its end too early, where a cosine rises again.
    """
    settings, length = trainer.config.lr_scheduler, trainer.epochs * trainer.steps_per_epoch
    done = (trainer.epoch + 1) * trainer.steps_per_epoch - len(trainer.train_loader)
    trainer.total_steps = trainer.steps_with(length - done)
    position, end = done, length
    if settings.type != "milestones" and trainer.total_steps - trainer.global_step < length - done:
        position, end = trainer.global_step, trainer.total_steps
    scheduler = build_scheduler(trainer.optimizer, settings, trainer.steps_per_epoch, end)
    scheduler.last_epoch = position - 1
    scheduler.step()
    trainer.scheduler = trainer.train_step.scheduler = scheduler


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators, in plain containers and tensors."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (somebody's code may draw from it)
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put all generators back to what `random_state` saw."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def changes(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """A line for each value of two configs that differs: "optimizer.new_lr is 1e-05, was 0.0001"."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            yield from changes(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key} is {now!r}, was {before!r}"
