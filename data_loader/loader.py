"""Which rank sees which sample when, and loading them; an epoch and a count are all the state there is."""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from data_loader.collate import Collate
from data_loader.dataset import VideoDataset
from data_loader.handover import hand_over_through_pipes, shared_memory_is_short
from data_loader.video.process import keep_freed_memory

logger = logging.getLogger(__name__)

# A loader that restarts within an epoch of the joint loader goes through its data in a new order: that of
# an epoch number far from all others.
PASS_STRIDE = 1_000_000
NICENESS = 10  # of workers and their decoders: how far they stand back, of 19


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), the keys of `VideoDataset`, of one rank's samples of an epoch.

    Training: all ranks walk together through one order, shuffled by seed + epoch; of the n samples left
    rank r takes the r-th, (r + W)-th, ...; the remainder n mod W is dropped (as
    DistributedSampler(drop_last=True)). Validation: the list's order, each sample once on exactly one rank,
    none dropped, and always epoch 0, so that every validation sees the same frames.

    `set_epoch(epoch, seen)` starts an epoch behind its first `seen` samples, counted over all ranks. As
    these are a prefix of the common order, a run may continue on another number of ranks with exactly the
    samples not seen yet.
    """

    def __init__(self, size: int, train: bool, rank: int = 0, world_size: int = 1, seed: int = 0):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} ranks")
        if train and size < world_size:
            raise ValueError(f"{size} samples are too few for {world_size} ranks: each needs one at least")
        self.size, self.train, self.rank, self.world_size, self.seed = size, train, rank, world_size, seed
        self.epoch, self.seen = 0, 0

    def set_epoch(self, epoch: int, seen: int = 0) -> None:
        if not 0 <= seen <= self.size:
            raise ValueError(f"{seen} samples seen of {self.size}: is this the data that the run began with?")
        self.epoch, self.seen = epoch, seen

    def __len__(self) -> int:
        """Samples left in this epoch for this rank."""
        if self.train:
            return (self.size - self.seen) // self.world_size
        return len(range(self.seen + self.rank, self.size, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        mine = slice(self.seen + self.rank, None, self.world_size)
        if not self.train:
            return ((0, index) for index in range(self.size)[mine])
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.size, generator=generator)[mine][: len(self)].numpy()
        epoch = self.epoch
        return ((epoch, int(index)) for index in order)


def build_loader(
    dataset: VideoDataset,
    batch_size: int,
    *,
    train: bool,
    tokenizer=None,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    pin_memory: bool | None = None,
    prefetch_factor: int = 2,
    context: str | None = None,
) -> DataLoader:
    """A loader over this rank's share of a data set, in batches of `Collate(tokenizer)`.

    Workers are started as `worker_options` has it. Those of training stay from epoch to epoch; those of
    validation, and their decoders, end with each validation. Memory is pinned where there is a GPU.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), train, rank, world_size, seed),
        collate_fn=Collate(tokenizer),
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        generator=torch.Generator().manual_seed(seed),  # else each epoch draws from the model's generator
        persistent_workers=train and num_workers > 0,
        **worker_options(num_workers, prefetch_factor, context),
    )


def worker_options(num_workers: int, prefetch_factor: int, context: str | None = None) -> dict[str, Any]:
    """How a DataLoader's workers are started: with one thread each, as more workers beat more threads.

    They are forked where the system can: no reader is ever open when that happens, since a sample opens and
    closes its own, workers never touch the GPU, and forked workers share the lists of a data set with their
    parent. `context` names another way to start them ("spawn", "forkserver").
    """
    if not num_workers:
        return {"num_workers": 0}
    if context is None and sys.platform == "linux":
        context = "fork"
    return {
        "num_workers": num_workers,
        "prefetch_factor": prefetch_factor,
        "multiprocessing_context": context,
        "worker_init_fn": partial(start_worker, through_pipes=shared_memory_is_short()),
    }


def start_worker(worker: int, through_pipes: bool = False) -> None:
    """Give a worker one thread and a low priority, and have it ignore the signals that stop a run.

    The training process handles those, and needs batches to finish its step.
    """
    if through_pipes:
        hand_over_through_pipes()
    torch.set_num_threads(1)
    keep_freed_memory()
    gc.freeze()  # long-lived objects of the parent: full collections would scan them each time
    if hasattr(os, "nice"):  # not on Windows
        # Where workers take all cores, the process that feeds the GPU still runs at once when it can.
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        # Schedulers send SIGTERM to all processes of a run, and the loader ends its workers by it. They are
        # to obey the second alone; who sent a signal, only sigwaitinfo tells.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=exit_at_parents_signal, daemon=True).start()


def exit_at_parents_signal() -> None:
    """End this process at the SIGTERM of its parent. (That its parent has died, a worker notices itself.)"""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def turns(weights: Sequence[int]) -> list[int]:
    """Whose turn it is in a joint step: i comes `weights[i]` times, as evenly spread as that goes.

    [1, 1] -> [0, 1]; [3, 1] -> [0, 0, 1, 0]. Raises ValueError for a weight below 1.
    """
    if min(weights) < 1:
        raise ValueError(f"weights {list(weights)}: each must be a whole number from 1 on")
    places = [((k + 0.5) / weight, i) for i, weight in enumerate(weights) for k in range(weight)]
    return [i for _, i in sorted(places)]


class JointLoader:
    """Takes its loaders in turn: yields (loader, batch). A joint step has `weights[i]` batches of loader i,
    evenly spread; without weights one of each, 0, 1, ..., as in the official release.

    An epoch sees the samples of the first loader once, and lasts as many joint steps as that takes. Loaders
    that run out restart in a new order (the official release repeats the order); the first does where its
    batches do not fill the last joint step. Every epoch starts all loaders afresh.

    `state_dict()` says where the batches handed out so far end; `load_state_dict` continues there, with
    exactly the batches that would have come, on any number of ranks exactly with the samples not seen yet.
    Both are for the time between two joint steps, when `turn` is 0.
    """

    def __init__(
        self,
        loaders: Sequence[DataLoader],
        names: Sequence[str] | None = None,
        weights: Sequence[int] | None = None,
    ):
        if not loaders:
            raise ValueError("no loaders: a joint loader needs one at least")
        self.loaders = list(loaders)
        self.weights = [1] * len(self.loaders) if weights is None else list(weights)
        self.turns = turns(self.weights)
        self.names = list(names) if names is not None else [str(i) for i in range(len(self.loaders))]
        self.samplers: list[EpochSampler] = []
        self.batch_sizes: list[int] = []
        for name, loader in zip(self.names, self.loaders, strict=True):
            sampler, batch_size = loader.sampler, loader.batch_size
            if not isinstance(sampler, EpochSampler) or batch_size is None:
                raise ValueError(f"loader {name} gives no batches by epoch; make it with build_loader")
            if not sampler.train:
                raise ValueError(f"loader {name} is for validation; build it with train=True")
            sampler.set_epoch(0)
            if not len(loader):
                raise ValueError(f"loader {name} gives no batch: its data set has {sampler.size} samples")
            self.samplers.append(sampler)
            self.batch_sizes.append(batch_size)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """Start at a step of an epoch, as if the run had come there on these ranks with these batch sizes."""
        self.epoch, self.step, self.turn = epoch, step, 0
        self.passes, self.seen = [0] * len(self.loaders), [0] * len(self.loaders)
        for i, loader in enumerate(self.loaders):
            self.samplers[i].set_epoch(epoch)
            if i == 0 and step > (steps := -(-len(loader) // self.weights[0])):
                raise ValueError(f"step {step} of an epoch of {steps} steps")
            batches = step * self.weights[i]
            # A pass that has just ended is only restarted when its loader's next turn comes.
            self.passes[i] = max(0, batches - 1) // len(loader)
            self.seen[i] = self.seen_after(i, batches - self.passes[i] * len(loader))
        self.position_samplers()

    def seen_after(self, i: int, batches: int) -> int:
        """Samples of all ranks in the first batches of a pass of loader i."""
        sampler = self.samplers[i]
        return min(batches * self.batch_sizes[i], len(sampler)) * sampler.world_size

    def state_dict(self) -> dict:
        """Plain numbers, and for each loader its name and how many samples it has."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "passes": [*self.passes],
            "seen": [*self.seen],
            "names": [*self.names],
            "sizes": [sampler.size for sampler in self.samplers],
        }

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError for a state of other loaders; the order of them may be another, weights too."""
        if len(state["seen"]) != len(self.loaders):
            raise ValueError(f"a state of {len(state['seen'])} loaders does not fit {len(self.loaders)}")
        names = state.get("names", self.names)  # states of before have none
        if sorted(names) != sorted(self.names):
            raise ValueError(
                f"the run's training sets were {', '.join(names)}, and now are {', '.join(self.names)}: give "
                'them their names ("name" in data.train), or begin a new run with arch.start_from'
            )
        places = [names.index(name) for name in self.names]
        self.epoch, self.step, self.turn = state["epoch"], state["step"], 0
        self.passes = [state["passes"][place] for place in places]
        self.seen = [state["seen"][place] for place in places]
        self.position_samplers()
        for place, name, sampler in zip(places, self.names, self.samplers, strict=True):
            before = state["sizes"][place] if "sizes" in state else sampler.size
            if before != sampler.size and (state["seen"][place] or state["passes"][place]):
                logger.warning(
                    "%s had %d samples when the epoch began, and has %d now: the rest of the epoch goes by "
                    "another order, in which some come again or not at all",
                    name,
                    before,
                    sampler.size,
                )

    def position_samplers(self) -> None:
        for sampler, number, seen in zip(self.samplers, self.passes, self.seen, strict=True):
            sampler.set_epoch(self.epoch + PASS_STRIDE * number, seen)

    @property
    def steps(self) -> int:
        """Joint steps of this epoch: those done and those left."""
        if self.passes[0]:  # begun anew in the last step
            return self.step + (self.turn > 0)
        sampler = self.samplers[0]
        left = (sampler.size - self.seen[0]) // sampler.world_size
        return self.step + -(-left // (self.batch_sizes[0] * self.weights[0]))

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return (self.steps - self.step) * len(self.turns)

    def __str__(self) -> str:
        """How the sets are mixed, for people: a line each."""
        lines = []
        for name, sampler, size, weight in zip(
            self.names, self.samplers, self.batch_sizes, self.weights, strict=True
        ):
            batches, of_a_pass = self.steps * weight, -(-(sampler.size // sampler.world_size) // size)
            lines.append(
                f"{name}: {weight} of {len(self.turns)} batches; {batches:,} an epoch, "
                f"{batches / of_a_pass:.2f} times through its {sampler.size:,} samples"
            )
        return "\n".join(lines)

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        self.position_samplers()
        iterators: list[Iterator[dict]] = [iter(loader) for loader in self.loaders]
        for _ in range(self.steps - self.step):
            for i in self.turns:
                batch = next(iterators[i], None)
                if batch is None:
                    iterators[i] = self.restart(i)
                    batch = next(iterators[i])
                sampler = self.samplers[i]
                left = (sampler.size - self.seen[i]) // sampler.world_size
                self.seen[i] += min(self.batch_sizes[i], left) * sampler.world_size
                self.turn = (self.turn + 1) % len(self.turns)
                self.step += self.turn == 0
                yield i, batch

    def restart(self, i: int) -> Iterator[dict]:
        self.passes[i] += 1
        self.seen[i] = 0
        self.samplers[i].set_epoch(self.epoch + PASS_STRIDE * self.passes[i])
        return iter(self.loaders[i])
