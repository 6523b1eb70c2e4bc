"""A run's checkpoints: whole files only, the newest and the best kept, and what is read back from them."""

import logging
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from model import TVTSv2, load_checkpoint
from model.checkpoint import read_state_dict
from model.torch_files import check_torch_file
from trainer.engine import slice_like
from trainer.sharded import read_rest, remove_sharded, restore_sharded
from utils.config import resolve_path
from utils.files import UNFINISHED, RunWriteError, unfinished_name, whole_file
from utils.lock import lock_folder
from utils.processes import DistContext

logger = logging.getLogger(__name__)

BEST_NAME = "model_best.pth"
_NAME = re.compile(r"checkpoint-epoch(\d+)(?:-step(\d+))?\.(?:pth|dcp)")


def checkpoint_path(run_dir: Path, epoch: int, step: int, sharded: bool = False) -> Path:
    """`checkpoint-epochN.pth` after N epochs, `checkpoint-epochN-stepS.pth` S joint steps into the next.

    A distributed checkpoint, a folder, ends in `.dcp` (trainer.sharded).
    """
    steps = f"-step{step}" if step else ""
    return run_dir / f"checkpoint-epoch{epoch}{steps}{'.dcp' if sharded else '.pth'}"


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` under a temporary name, then rename it: a file of the right name is always whole.

    Raises:
        RunWriteError: the disk is full or the folder cannot be written; an earlier file of that name
            is untouched.
    """
    with whole_file(path, RunWriteError) as unfinished, unfinished.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def mark_best(checkpoint: Path) -> None:
    """Make `checkpoint` the folder's best one, as a second name of the same file where that is possible.

    The best is a file even where the checkpoint is a folder: its weights, without the optimiser's state.
    """
    if checkpoint.is_dir():
        rest = {key: value for key, value in read_rest(checkpoint).items() if key != "optimizer"}
        weights = {"state_dict": read_state_dict(checkpoint)}
        save_atomically({**rest, **weights}, checkpoint.with_name(BEST_NAME))
        return
    with whole_file(checkpoint.with_name(BEST_NAME), RunWriteError) as unfinished:
        try:
            os.link(checkpoint, unfinished)
        except OSError:  # some network and USB drives have no hard links
            shutil.copyfile(checkpoint, unfinished)


def prepare_folder(run_dir: Path) -> IO[str] | None:
    """Make a run's folder, lock it, and remove files that a killed process left half-written there.

    Returns:
        the lock, to be kept open while the run lasts; None where the file system has no locks.

    Raises:
        RunError: another training is writing there.
        RunWriteError: it cannot be made or written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (probe := unfinished_name(run_dir / "probe")).touch()
        probe.unlink()
        lock = lock_folder(run_dir, f"checkpoints to {run_dir}", "give this one another name (--set name=…)")
        for path in run_dir.glob(f".*{UNFINISHED}"):
            remove(path)
        return lock
    except OSError as error:
        raise RunWriteError(
            f"cannot write to the run's folder {run_dir}: {error.strerror}; trainer.save_dir chooses another"
        ) from error


def remove_old(run_dir: Path, keep: int | None) -> None:
    """Delete all but the `keep` newest checkpoints (None: keep all); the best one has a name of its own.

    Those that cannot be read are kept and not counted. One that cannot be deleted is named in a warning: no
    reason to end a training.
    """
    found = list_checkpoints(run_dir)
    if keep is None or len(found) <= keep:
        return
    for path in [path for path in found if is_whole(path)][keep:]:
        try:
            remove(path)
        except OSError as error:
            logger.warning("cannot delete the old checkpoint %s (%s): delete it by hand", path, error)


def remove(path: Path) -> None:
    """Delete a checkpoint, whichever kind it is."""
    if path.is_dir():
        remove_sharded(path)
    else:
        path.unlink(missing_ok=True)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, the one furthest in training first."""
    return [run_dir / name for name in newest_first([path.name for path in run_dir.glob("checkpoint-*")])]


def newest_first(names: Sequence[str]) -> list[str]:
    """Those that are checkpoints' names, the one furthest in training first."""
    return sorted(filter(_NAME.fullmatch, names), key=position, reverse=True)


def position(name: str) -> tuple[int, int]:
    """Epochs done and joint steps of the next one, by a checkpoint's name."""
    found = _NAME.fullmatch(name)
    assert found, "a checkpoint's name"
    return int(found[1]), int(found[2] or 0)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read; its tensors are not looked at."""
    try:
        read_checkpoint(path)
    except (ValueError, OSError):
        return False
    return True


def read_newest(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint furthest in training that is whole, or None; a warning names damaged ones on the way."""
    for path in list_checkpoints(run_dir):
        try:
            return path, read_checkpoint(path)
        except (ValueError, OSError) as error:
            logger.warning("passing over %s", error)
    return None


def choose_checkpoint(
    run_dir: Path, source: str, others: Mapping[str, Sequence[str]] | None = None
) -> Path | None:
    """What to go on from: `source` is a path, or "auto" for the newest whole one of the run, None if none.

    others: places beside the run's folder with checkpoints of it, and their names.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint`.
        FileExistsError: the run has checkpoints beyond that one. They would pass for the newest ones, and
            those written next would be removed as old.
    """
    if source == "auto":
        found = read_newest(run_dir)
        return found and found[0]
    path = resolve_path(source)
    state = read_checkpoint(path)
    place = position(checkpoint_path(run_dir, state["epoch"], state["loader"].get("step", 0)).name)
    there = {str(run_dir): [each.name for each in list_checkpoints(run_dir)], **(others or {})}
    for folder, names in there.items():
        if further := [name for name in names if position(name) > place]:
            raise FileExistsError(
                f"{folder} holds checkpoints beyond {path.name}: {', '.join(further)}. Move them "
                "away, or give the new run a name of its own (--set name=…)"
            )
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read one of our training checkpoints; only tensors and plain containers are unpickled.

    Of a distributed checkpoint it is all but the tensors, which `restore` reads.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or is no training checkpoint.
    """
    try:
        if path.is_dir():
            state = read_rest(path)
        else:
            check_torch_file(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no checkpoint {path}: {error}") from error
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise ValueError(f"{path}: not a whole checkpoint ({type(error).__name__}: {error})") from error
    missing = {"state_dict", "optimizer", "scheduler", "loader", "epoch", "global_step"} - set(state)
    if missing:
        raise ValueError(f"{path}: not a training checkpoint, it lacks {', '.join(sorted(missing))}")
    return state


def restore(
    path: Path,
    state: Mapping[str, Any],
    model: TVTSv2,
    optimizer: torch.optim.Optimizer,
    context: DistContext,
) -> None:
    """Fill model and optimiser from a checkpoint, whichever engine and number of ranks wrote it.

    Every rank has to call it. `state` is what `read_checkpoint(path)` gave.

    Raises:
        ValueError: the checkpoint is of another model, its weights hold NaN or infinity, or it is of a run
            that trained other parameters.
    """
    if path.is_dir():
        head = getattr(model, "head", None)  # a module of any kind may be trained
        names = None if head is None else head.class_names
        restore_sharded(path, state["optimizer"], model, optimizer, context)
        if head is not None and head.class_names != names:
            raise ValueError(f"{path}: its classification head is for other classes than the data's")
        return
    load_checkpoint(model, path)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    there = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
    if there != [len(group["params"]) for group in optimizer.param_groups]:
        raise ValueError(
            f"{path} is of a run that trained other parameters, or grouped them otherwise; set arch and "
            "optimizer.layer_decay as they were there"
        )
    slices = {
        index: {name: slice_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["optimizer"]["state"].items()
    }
    optimizer.load_state_dict({**state["optimizer"], "state": slices})


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators, in plain containers and tensors."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (some library may draw from it)
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
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


def changes(before: Any, now: Any, key: str = "", than: str = "was") -> Iterator[str]:
    """A line for each value of two configs that differs: "optimizer.new_lr is 1e-05, was 0.0001"."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            yield from changes(before.get(name), now.get(name), f"{key}.{name}" if key else name, than)
    elif before != now:
        yield f"{key} is {now!r}, {than} {before!r}"
