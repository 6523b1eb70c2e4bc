"""A run's checkpoints on disk: whole files only, the newest and the best kept."""

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from model.checkpoint import read_state_dict
from model.torch_files import check_torch_file
from trainer.sharded import read_rest, remove_sharded
from utils.files import UNFINISHED, RunWriteError, unfinished_name, whole_file
from utils.lock import lock_folder

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

    The best is one file also where the checkpoint is a folder: its weights, without the optimiser's state.
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
    """Make a run's folder, lock it, and remove what a killed process left half-written there.

    Returns:
        the lock, to be kept open while the run lasts; None where the file system has no locks.

    Raises:
        RunError: another training is writing there.
        RunWriteError: it cannot be made or written: better said before the training than after.
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

    One that cannot be read does not count: it is kept, and so is a whole one in its place. One that cannot be
    deleted is named in a warning: no reason to end a training.
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
    """The run's checkpoints, the furthest one first."""
    found = [(m, path) for path in run_dir.glob("checkpoint-*") if (m := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (int(pair[0][1]), int(pair[0][2] or 0)), reverse=True)
    return [path for _, path in found]


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read; its tensors are not looked at."""
    try:
        read_checkpoint(path)
    except (ValueError, OSError):
        return False
    return True


def read_newest(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The furthest checkpoint that is whole, or None; damaged ones are passed over with a warning."""
    for path in list_checkpoints(run_dir):
        try:
            return path, read_checkpoint(path)
        except (ValueError, OSError) as error:
            logger.warning("passing over %s", error)
    return None


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
