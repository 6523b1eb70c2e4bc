"""Being told to stop: SIGTERM and SIGINT end a run between two steps, on all ranks together, after saving."""

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from utils.processes import DistContext


class Stopped(Exception):
    """The run was asked to stop (SIGTERM or SIGINT) and a checkpoint holds what it has done."""


class StopSignal:
    """Remembers, while entered as a context, that this process got a SIGTERM or SIGINT.

    A process that torchrun has started stops, too, when torchrun is gone: if that is killed, its processes
    are left behind, and would train on, unseen, in the folder of the run that is started next.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._torchrun = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def received(self) -> bool:
        return self._signalled or self.abandoned

    @property
    def abandoned(self) -> bool:
        """Whether the torchrun that has started this process has ended."""
        return self._torchrun is not None and os.getppid() != self._torchrun

    def __enter__(self) -> "StopSignal":
        self._previous = {s: signal.signal(s, self._remember) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True


class LateSum:
    """Whole numbers added up over the ranks and handed out one call later.

    All ranks have to agree on what to do after a step (stop, save). Asking at every step whether one of them
    was told to stop would make the host wait for the device each time. Here the sum is on its way while the
    next step is prepared, and every rank gets the same answer at the same step.
    """

    def __init__(self, context: DistContext):
        self.context = context
        self._total: torch.Tensor | None = None
        self._done: Any = None  # what to wait for before `_total` may be read

    def __call__(self, counts: Sequence[int]) -> list[int]:
        """Start to sum `counts`; the sums of the call before, or zeros (one process: its own)."""
        if self.context.world_size == 1:
            return list(counts)
        sums = self.collect() or [0] * len(counts)
        cuda = self.context.device.type == "cuda"
        total = torch.tensor(counts, dtype=torch.int64, pin_memory=cuda)
        if cuda:
            on_device = total.to(self.context.device, non_blocking=True)
            dist.all_reduce(on_device)  # queued: only the device waits for it
            total = torch.empty_like(total, pin_memory=True).copy_(on_device, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
        else:
            self._done = dist.all_reduce(total, async_op=True)
        self._total = total
        return sums

    def collect(self) -> list[int] | None:
        """The sums under way, if there are any; every rank must ask at the same step."""
        if self._total is None:
            return None
        if isinstance(self._done, torch.cuda.Event):
            self._done.synchronize()
        else:
            self._done.wait()
        sums, self._total, self._done = self._total.tolist(), None, None
        return sums
