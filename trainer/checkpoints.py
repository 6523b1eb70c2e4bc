"""A run's checkpoints on disk: whole files only, the newest and the best kept."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

BEST_NAME = "model_best.pth"
_NAME = re.compile(r"checkpoint-epoch(\d+)(?:-step(\d+))?\.pth")


def checkpoint_path(run_dir: Path, epoch: int, step: int) -> Path:
    """`checkpoint-epochN.pth` after N epochs, `checkpoint-epochN-stepS.pth` S steps into the next one."""
    return run_dir / (f"checkpoint-epoch{epoch}-step{step}.pth" if step else f"checkpoint-epoch{epoch}.pth")


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` under a temporary name, then rename it: a file of the right name is always whole.

    Raises:
        OSError: the disk is full or the folder cannot be written; an earlier file of that name is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        unfinished.unlink(missing_ok=True)
        raise OSError(
            f"could not write the checkpoint {path}: {error}; free some space and --resume auto"
        ) from error


def remove_old(run_dir: Path, keep: int | None) -> None:
    """Delete all but the `keep` newest checkpoints (None: keep all); the best one has a file of its own."""
    for path in list_checkpoints(run_dir)[keep:] if keep is not None else []:
        path.unlink(missing_ok=True)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, the furthest one first."""
    found = [(m, path) for path in run_dir.glob("checkpoint-*.pth") if (m := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (int(pair[0][1]), int(pair[0][2] or 0)), reverse=True)
    return [path for _, path in found]


def read_newest(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The furthest checkpoint that is whole, or None; damaged ones are passed over with a warning."""
    for path in list_checkpoints(run_dir):
        try:
            return path, read_checkpoint(path)
        except ValueError as error:
            logger.warning("passing over %s", error)
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read one of our training checkpoints; only tensors and plain containers are unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or is no training checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no checkpoint {path}") from error
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise ValueError(f"{path}: not a whole checkpoint ({type(error).__name__}: {error})") from error
    missing = {"state_dict", "optimizer", "scheduler", "loader", "epoch", "global_step"} - set(state)
    if missing:
        raise ValueError(f"{path}: not a training checkpoint, it lacks {', '.join(sorted(missing))}")
    return state
