"""How workers hand tensors over to the process that they read for: in shared memory, if there is enough."""

import os
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

SHARED_MEMORY = "/dev/shm"
ENOUGH_BYTES = 2 * 2**30  # free; a dozen workers have about 1 GB of clips ready

_through_pipes = False  # in a worker, once it has been told


def shared_memory_is_short() -> bool:
    """Whether the clips that lie ready may not fit: Docker gives its containers 64 MB of shared memory.

    Says so, and what to do.
    """
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:  # not Linux
        return False
    free = state.f_bavail * state.f_frsize
    if free >= ENOUGH_BYTES:
        return False
    _say_once(
        f"note: less than {ENOUGH_BYTES / 2**30:g} GB of {SHARED_MEMORY} are free, so workers hand videos "
        "over through pipes, which is slower; docker run --shm-size=8g gives more"
    )
    return True


@cache
def _say_once(note: str) -> None:
    print(note, file=sys.stderr)


def hand_over_through_pipes() -> None:
    """Have this process, a worker, send tensors as bytes instead of in shared memory."""
    global _through_pipes
    _through_pipes = True
    ForkingPickler.register(torch.Tensor, _as_bytes)


def stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    """B tensors of one shape -> [B, ...]; in a worker into shared memory at once, which saves a copy."""
    return torch.stack(tensors) if _through_pipes else default_collate(tensors)


def _as_bytes(tensor: torch.Tensor) -> tuple[Callable[[np.ndarray], torch.Tensor], tuple[Any]]:
    return torch.from_numpy, (tensor.numpy(),)
