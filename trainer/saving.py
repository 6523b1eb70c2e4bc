"""Checkpoints written beside the training: it stands still for a copy into host memory only."""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from trainer import checkpoint
from trainer.bucket import Bucket
from trainer.sharded import save_sharded
from trainer.signals import Stopped
from utils.processes import DistContext

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes a run's checkpoints in a thread, one after the other.

    `save` copies the state and returns; at the next one, and at the end of the context, the one before is
    whole. An error of the thread is raised by the next call of any method: on the rank that had it, and with
    sharded checkpoints on all.

    Args:
        context: of the training. Where ranks write together, they talk over a group of their own meanwhile.
        sharded: whether each rank writes its slices; else rank 0 writes a file.
        keep: how many checkpoints are kept, None for all.
        timeout_s: how long ranks that write together wait for each other.
    """

    def __init__(self, context: DistContext, sharded: bool, keep: int | None, timeout_s: float):
        self.sharded, self.keep, self.writes = sharded, keep, sharded or context.is_main
        self.context = context.apart(timeout_s) if sharded else context
        self.host = HostCopy(self.context)
        self.thread = ThreadPoolExecutor(1, "checkpoints")
        self.jobs: list[Future[None]] = []
        self.bucket: Bucket | None = None  # of rank 0: has the run's folder copied after each checkpoint

    def save(self, state: Mapping[str, Any], path: Path) -> None:
        """Write `state` to `path`; what becomes of its tensors after this call does not matter.

        Every rank has to call it.
        """
        if self.writes:
            self.wait()
            begin = time.monotonic()
            copied = self.host.of(state)
            self.submit(self._write, copied, path, time.monotonic() - begin)

    def submit(self, job: Callable[..., None], *args: Any) -> None:
        """Have the thread do something, after what it was given before."""
        self.raise_failure()
        self.jobs.append(self.thread.submit(job, *args))

    def raise_failure(self) -> None:
        """Raise the error of a job that has failed, if one has; wait for none."""
        while self.jobs and self.jobs[0].done():
            self.jobs.pop(0).result()

    def wait(self) -> None:
        """Return when all is written. Raises RunWriteError: something could not be."""
        while self.jobs:
            self.jobs.pop(0).result()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait; an error of the thread is raised, or logged if the run ends by another one already."""
        try:
            self.wait()
        except Exception as failure:
            if error is None or isinstance(error, Stopped):
                raise
            logger.error("the last checkpoint is not whole: %s", failure)
        finally:
            self.thread.shutdown()

    def _write(self, state: Mapping[str, Any], path: Path, copying: float) -> None:
        begin = time.monotonic()
        self.host.finish()
        if self.sharded:
            save_sharded(state, path, self.context)
        else:
            checkpoint.save_atomically(state, path)
        if self.context.is_main:
            checkpoint.remove_old(path.parent, self.keep)
            if self.bucket is not None:
                self.bucket.update()
            took = time.monotonic() - begin
            logger.info("wrote %s in %.1f s; training stood for %.2f s of copying", path.name, took, copying)


class HostCopy:
    """Copies of states in host memory; each takes the place of the one before.

    From a GPU it is copied into page-locked memory, without the host waiting for it: `finish` does.
    """

    def __init__(self, context: DistContext):
        self.mesh = DeviceMesh.from_group(context.group, "cpu") if context.group is not None else None
        self.tensors: dict[tuple[Any, ...], torch.Tensor] = {}
        self.copied: torch.cuda.Event | None = None

    def of(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a state, of nested containers; slices of sharded tensors become slices on the CPU."""
        copied = self._copy(dict(state), ())
        if any(tensor.is_pinned() for tensor in self.tensors.values()):
            self.copied = torch.cuda.Event()
            self.copied.record()
        return copied

    def finish(self) -> None:
        """Wait until a copy from a GPU has arrived."""
        if self.copied is not None:
            self.copied.synchronize()

    def _copy(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, DTensor):
            local = self._copy(value.to_local(), place)
            return DTensor.from_local(
                local, self.mesh, value.placements, shape=value.shape, stride=value.stride()
            )
        if torch.is_tensor(value):
            own = self.tensors.get(place)
            if own is None or own.shape != value.shape or own.dtype != value.dtype:
                own = torch.empty_like(value.detach(), device="cpu", pin_memory=value.is_cuda)
                self.tensors[place] = own
            return own.copy_(value.detach(), non_blocking=value.is_cuda)
        if isinstance(value, Mapping):
            return {key: self._copy(each, (*place, key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(each, (*place, i)) for i, each in enumerate(value))
        return copy.deepcopy(value)
