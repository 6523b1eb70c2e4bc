"""Going on with a run: what a checkpoint holds of it, and putting a trainer where a checkpoint was."""

import json
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from trainer import checkpoint, optim
from trainer.alike import check_weights
from trainer.bucket import Bucket
from trainer.checkpoint import list_checkpoints
from trainer.metrics import STARTS
from utils.config import as_dict
from utils.processes import DistContext

if TYPE_CHECKING:
    from trainer.trainer import Trainer

logger = logging.getLogger(__name__)


def torchruns(context: DistContext) -> list[str]:
    """What tells the torchruns of the processes from all others: host, process, and when it started.

    Every rank has to call it. Empty without torchrun.
    """
    own = None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stat = Path(f"/proc/{os.getppid()}/stat")
        started = stat.read_text().rpartition(")")[2].split()[19] if stat.is_file() else "?"
        own = f"{socket.gethostname()} {os.getppid()} {started}"
    return sorted({each for each in context.gather_objects(own) if each})


def was_restarted(run_dir: Path, context: DistContext) -> bool:
    """Whether a torchrun of these processes has started this run before, and it has a checkpoint by now.

    Every rank has to call it.
    """
    mine, starts = torchruns(context), run_dir / STARTS
    restarted = False
    if context.is_main and starts.is_file() and list_checkpoints(run_dir):
        restarted = not {*latest_start(starts).get("torchruns", [])}.isdisjoint(mine)
    return context.broadcast_object(restarted)


def latest_start(starts: Path) -> dict[str, Any]:
    """The last whole line of a run's starts.jsonl: a full disk, or a kill, may have cut one off."""
    for line in reversed(starts.read_text().splitlines()):
        with suppress(ValueError):
            return json.loads(line)
    return {}


def state_of(trainer: "Trainer") -> dict[str, Any]:
    """All that a later process needs to go on as if never interrupted. Every rank has to call it."""
    optimizer: Mapping[str, Any] = trainer.optimizer.state_dict()  # by number
    if trainer.engine.sharded:
        optimizer = get_optimizer_state_dict(trainer.model, trainer.optimizer)  # by name
    context, average = trainer.context, trainer.average
    weights, trained = trainer.model.state_dict(), None
    if average is not None:  # whoever reads the weights of a checkpoint gets the averaged ones
        averaged = average.averaged()
        trained = {name: weights[name] for name in averaged}
        weights = {**weights, **averaged}
    return {
        "arch": trainer.config.arch.type,
        "epoch": trainer.epoch,
        "loader": trainer.train_loader.state_dict(),
        "global_step": trainer.global_step,
        "steps_per_epoch": trainer.steps_per_epoch,
        "state_dict": weights,
        "trained": trained,
        "optimizer": optimizer,
        "scheduler": trainer.train_step.scheduler.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "random_states": context.gather_objects(checkpoint.random_state(context.device)),
        "world_size": context.world_size,
        "config": as_dict(trainer.config),
    }


def choose(
    run_dir: Path, source: str | None, context: DistContext, bucket: Bucket | None = None
) -> Path | None:
    """The checkpoint to go on from: None of no `source`, and where "auto" finds none in the run's folder.

    bucket: of rank 0, if there is one. Every rank has to call it. Raises as `choose_checkpoint`.
    """
    if source is None:
        return None
    # Rank 0 chooses for all: they might not see the same files.
    chosen = None
    if context.is_main:
        others = {bucket.url: bucket.checkpoints()} if bucket is not None and source != "auto" else {}
        chosen = checkpoint.choose_checkpoint(run_dir, source, others)
    path = context.broadcast_object(chosen)
    if path is None:
        logger.info("nothing to resume in %s: starting anew", run_dir)
    return path


def resume(trainer: "Trainer", path: Path) -> None:
    """Go on from a checkpoint.

    The checkpoint says how far the run is: weights, the optimiser's moments, position in the epoch, random
    states. The config says how to go on: learning rates, their schedule, decay and whatever else was set
    differently this time; what differs is logged. With an unchanged config on as many processes, the run
    goes on to the bit as if it had not been interrupted; on another number of processes, with the samples of
    the epoch not seen yet, and as far in the schedule as the share of the epochs done.
    """
    config, context = trainer.config, trainer.context
    state = checkpoint.read_checkpoint(path)
    if not path.is_dir():  # each process reads the slices of a distributed one from all files
        check_weights(state["state_dict"], context, str(path))
    with optim.keeping_settings(trainer.optimizer):
        checkpoint.restore(path, state, trainer.model, trainer.optimizer, context)
    trained = state.get("trained")
    if trainer.average is not None:
        trainer.average.restore(trained)
    elif trained is not None:
        trainer.model.load_state_dict({**trainer.model.state_dict(), **trained})
    trainer.scaler.load_state_dict(state["scaler"])
    if state["world_size"] == context.world_size:
        checkpoint.set_random_state(state["random_states"][context.rank], context.device)
    trainer.train_loader.load_state_dict(state["loader"])
    trainer.epoch, trainer.global_step = state["epoch"], state["global_step"]
    done = (trainer.epoch + 1) * trainer.steps_per_epoch - len(trainer.train_loader)
    length = trainer.epochs * trainer.steps_per_epoch
    trainer.total_steps = trainer.steps_with(length - done)
    trainer.train_step.scheduler = optim.resume_scheduler(
        trainer.optimizer,
        config.lr_scheduler,
        trainer.steps_per_epoch,
        in_epochs=(done, length),
        in_steps=(trainer.global_step, trainer.total_steps),
    )
    where = f"epoch {trainer.epoch}, joint step {trainer.train_loader.step}; step {trainer.global_step}"
    logger.info("resumed from %s: %s", path, where)
    for line in checkpoint.changes(state["config"], as_dict(config)):
        logger.info("set differently from the checkpoint: %s", line)
