"""Processes and devices: what torchrun set up, or a single process without it."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# torchrun takes the process that it sees end first for the root cause, and ends the others. It looks ten
# times a second: a process that only suffers from another's end leaves it this many seconds' lead.
NOTICED_S = 2.0


@dataclass(frozen=True)
class DistContext:
    """This process's place in the run. One process without torchrun is rank 0 of 1.

    group: what the processes talk over; None: the group that `setup` has joined.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def apart(self, timeout_s: float) -> "DistContext":
        """The same place, for a thread beside the training: on the CPU, and over a group of its own.

        Every rank has to call it.
        """
        if not dist.is_initialized():
            return replace(self, device=torch.device("cpu"))
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        assert isinstance(group, dist.ProcessGroup)
        return replace(self, device=torch.device("cpu"), group=group)

    def gather_objects(self, obj: Any) -> list[Any]:
        """Every rank's `obj`, in rank order, on every rank."""
        if self.world_size == 1:
            return [obj]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, obj, group=self.group)
        return gathered

    def broadcast_object(self, obj: Any) -> Any:
        """Rank 0's `obj` on every rank."""
        if self.world_size == 1:
            return obj
        holder = [obj]
        dist.broadcast_object_list(holder, src=0, group=self.group)
        return holder[0]

    def sum(self, counts: Sequence[int]) -> list[int]:
        """Whole numbers, each added up over the ranks, on every rank."""
        if self.world_size == 1:
            return list(counts)
        total = torch.tensor(counts, dtype=torch.int64, device=self.device)
        dist.all_reduce(total, group=self.group)
        return total.tolist()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """`values` averaged over the ranks."""
        if self.world_size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, group=self.group)
        return values / self.world_size

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.group)


def setup(device: str | int | None = None, timeout_s: float = 600.0) -> DistContext:
    """Join the process group that torchrun announces in the environment, if any.

    Args:
        device: "cuda", "cpu", "cuda:1", the GPUs of this host's processes "0,1", or None: a GPU if there is
            one.
        timeout_s: seconds after which a collective operation that some rank never joins is an error.

    Raises:
        ValueError: no such device, CUDA where there is none, or fewer GPUs than processes on this host.
    """
    rank = int(os.environ.get("RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    chosen = _pick_device(device, local_rank)
    if world_size > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        device_id = chosen if chosen.type == "cuda" else None
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s), device_id=device_id)
    return DistContext(rank, world_size, local_rank, chosen)


@contextmanager
def leaving_group() -> Iterator[None]:
    """Leaves the process group after what is done within, if one was joined.

    Not after an error: it has to be read first, and leaving makes the other processes fail, too.
    """
    yield
    if dist.is_available() and dist.is_initialized():
        has_threads = dist.get_backend() == "gloo"
        dist.destroy_process_group()
        if has_threads:
            # They live on while anything refers to the group, as FSDP does. One that has yet to drop the last
            # message's tensors when Python ends would abort the process: let it have its turn.
            time.sleep(0.1)


@contextmanager
def explain_lost_peers() -> Iterator[None]:
    """Says, where talking to the other processes fails, that the cause is to be looked for in one of them."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            error.add_note(
                "Most likely another process of this run has ended, or hung for trainer.timeout_s. Look for "
                "its own error: it stands above, or below as torchrun's root cause."
            )
            time.sleep(NOTICED_S)
        raise


def _pick_device(device: str | int | None, local_rank: int) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    numbers = _gpu_numbers(device)
    if numbers is None and torch.device(str(device)).type != "cuda":
        return torch.device(str(device))
    if not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but PyTorch sees no GPU; use device 'cpu'")
    index = local_rank if numbers is None else numbers[local_rank]
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this host wants GPU {index}, but there are "
            f"{torch.cuda.device_count()}; start at most one process a GPU (--nproc_per_node)"
        )
    chosen = torch.device("cuda", index)
    torch.cuda.set_device(chosen)
    return chosen


def _gpu_numbers(device: str | int) -> list[int] | None:
    """The GPUs that a device names, "0,1" or "cuda:1", one for each process of this host; None if none.

    Raises:
        ValueError: no such form of a device, or more or fewer GPUs than processes.
    """
    text = str(device).replace(" ", "")
    if re.fullmatch(r"cuda:\d+|\d+(,\d+)*", text):
        numbers = [int(number) for number in text.removeprefix("cuda:").split(",")]
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if len(set(numbers)) != processes:
            raise ValueError(
                f"device {text!r} names {len(set(numbers))} GPU(s) for {processes} process(es) of this host; "
                f"each takes one: torchrun --nproc_per_node {len(set(numbers))} …"
            )
        return numbers
    try:
        torch.device(text)
    except RuntimeError as error:
        raise ValueError(
            f"device {text!r} is none of cpu, cuda, cuda:1, or numbers of GPUs such as 0,1"
        ) from error
    return None
