"""A run's checkpoints on disk: whole files only, the newest and the best kept."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

BEST_NAME = "model_best.pth"
UNFINISHED = ".unfinished"
_NAME = re.compile(r"checkpoint-epoch(\d+)(?:-step(\d+))?\.pth")


def checkpoint_path(run_dir: Path, epoch: int, step: int) -> Path:
    """`checkpoint-epochN.pth` after N epochs, `checkpoint-epochN-stepS.pth` S steps into the next one."""
    return run_dir / (f"checkpoint-epoch{epoch}-step{step}.pth" if step else f"checkpoint-epoch{epoch}.pth")


class RunWriteError(OSError):
    """A file of a run could not be written; the checkpoints written before are intact."""

    @classmethod
    def of(cls, path: Path, error: Exception) -> "RunWriteError":
        """The error for a file, with what to do."""
        while not isinstance(error, OSError) and isinstance(error.__context__, Exception):
            error = error.__context__  # torch reports a full disk as "unexpected pos 768 vs 662"
        reason = getattr(error, "strerror", None) or error
        return cls(
            f"could not write {path}: {reason}; the checkpoints written before are intact: free some space, "
            "see that the folder can be written, and --resume auto"
        )


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` under a temporary name, then rename it: a file of the right name is always whole.

    Raises:
        RunWriteError: the disk is full or the folder cannot be written; an earlier file of that name
            is untouched.
    """
    with _whole_file(path) as unfinished, unfinished.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def mark_best(checkpoint: Path) -> None:
    """Make `checkpoint` the folder's best one, as a second name of the same file where that is possible."""
    with _whole_file(checkpoint.with_name(BEST_NAME)) as unfinished:
        try:
            os.link(checkpoint, unfinished)
        except OSError:  # some network and USB drives have no hard links
            shutil.copyfile(checkpoint, unfinished)


def write_text_atomically(text: str, path: Path) -> None:
    """Replace a small file's content, so that a reader finds the old or the new one, whole."""
    with _whole_file(path) as unfinished:
        unfinished.write_text(text)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes `path` if all goes well and is removed if not."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        yield unfinished
        unfinished.replace(path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise RunWriteError.of(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # also where `path` was the same file already: no renaming then
            unfinished.unlink()


def _flush_folder(folder: Path) -> None:
    """Else a power cut may undo a renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prepare_folder(run_dir: Path) -> None:
    """Make a run's folder, and remove what a killed process left half-written there.

    Raises:
        RunWriteError: it cannot be made or written: better said before the training than after.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for path in run_dir.glob(f".*{UNFINISHED}"):
            path.unlink(missing_ok=True)
        (probe := run_dir / f".probe{UNFINISHED}").touch()
        probe.unlink()
    except OSError as error:
        raise RunWriteError(
            f"cannot write to the run's folder {run_dir}: {error.strerror}; trainer.save_dir chooses another"
        ) from error


def check_keep_last(keep: int | None) -> None:
    """ValueError unless at least one checkpoint is kept."""
    if keep is not None and keep < 1:
        raise ValueError(
            f"trainer.keep_last is {keep}; it must be 1 or more, or null to keep every checkpoint"
        )


def remove_old(run_dir: Path, keep: int | None) -> None:
    """Delete all but the `keep` newest checkpoints (None: keep all); the best one has a name of its own."""
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
