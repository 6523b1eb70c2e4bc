"""Stopping by SIGTERM or SIGINT: the run ends between two steps, on all ranks together, after saving."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

from utils.processes import DistContext

MOST_S = 24 * 3600.0  # writing the last checkpoint, and its copy in a bucket, may take far longer than a step


class Stopped(Exception):
    """The run was asked to stop (SIGTERM or SIGINT) and a checkpoint holds what it has done."""


class StopSignal:
    """Remembers, while entered as a context, that this process got a SIGTERM or SIGINT.

    A process started by torchrun also stops when torchrun is gone: if that is killed, its processes live on,
    and would keep training unseen, in the folder of the run that is started next.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._torchrun = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def received(self) -> bool:
        """Whether this process is to stop, by a signal or as its torchrun has ended."""
        return self._signalled or self.abandoned

    @property
    def abandoned(self) -> bool:
        """Whether the torchrun that started this process has ended."""
        return self._torchrun is not None and os.getppid() != self._torchrun

    def __enter__(self) -> "StopSignal":
        self._previous = {s: signal.signal(s, self._remember) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True


@contextmanager
def ending_together(context: DistContext) -> Iterator[None]:
    """At its end the ranks wait until rank 0 has written all: each then ends as the others do. All enter it.

    Slurm kills what is still writing a minute after the first process has ended, and takes a run for saved
    whose rank 0 could not save. Not after an error, as a rank that has one ends by itself.
    """
    apart = context.apart(MOST_S)
    try:
        yield
    except Stopped:
        apart.barrier()
        raise
    apart.barrier()


class AsyncAllReduce:
    """Sums whole numbers over the ranks without waiting: a call returns the sums of the call before.

    After each step all ranks have to agree on what to do (stop, save). A blocking all-reduce at every step
    would make the host wait for the device each time. This one runs while the next step is prepared, and
    every rank gets the same answer at the same step.
    """

    def __init__(self, context: DistContext):
        self.context = context
        self._total: torch.Tensor | None = None
        self._done: torch.cuda.Event | dist.Work | None = None  # to wait for before `_total` may be read

    def __call__(self, counts: Sequence[int]) -> list[int]:
        """Start to sum `counts`. Returns the sums of the call before, or zeros; of one process, its own."""
        if self.context.world_size == 1:
            return list(counts)
        sums = self.wait() or [0] * len(counts)
        cuda = self.context.device.type == "cuda"
        total = torch.tensor(counts, dtype=torch.int64, pin_memory=cuda)
        if cuda:
            on_device = total.to(self.context.device, non_blocking=True)
            dist.all_reduce(on_device)  # queued: the device waits for it, the host does not
            total = torch.empty_like(total, pin_memory=True).copy_(on_device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
            self._done = copied
        else:
            self._done = dist.all_reduce(total, async_op=True)
        self._total = total
        return sums

    def wait(self) -> list[int] | None:
        """The sums of the last call, None if they were returned before. All ranks ask at the same step."""
        if self._total is None:
            return None
        if isinstance(self._done, torch.cuda.Event):
            self._done.synchronize()
        elif self._done is not None:
            self._done.wait()
        sums, self._total, self._done = self._total.tolist(), None, None
        return sums
