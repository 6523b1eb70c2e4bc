"""Loading the samples of an epoch, and taking several sets in turn."""

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
from torch.utils.data import DataLoader

from data_loader.collate import Collate
from data_loader.dataset import VideoDataset
from data_loader.epochs import EpochBatches, EpochSampler
from data_loader.handover import hand_over_through_pipes, shared_memory_is_short
from data_loader.video.process import keep_freed_memory

logger = logging.getLogger(__name__)

NICENESS = 10  # of workers and their decoders: how far they stand back, of 19


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
    validation, and their decoders, end with each validation, and are no more than it has batches: those of
    training read on into the next epochs. Memory is pinned where there is a GPU.
    """
    batches = EpochBatches(EpochSampler(len(dataset), train, rank, world_size, seed), batch_size)
    if not train:
        num_workers = min(num_workers, len(batches))
    return DataLoader(
        dataset,
        batch_sampler=batches,
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

    Workers do not wait for an epoch to be over: they read on into the next one, up to the end of epoch
    `epochs` - 1 if that is set, and what they have read is used where the next iteration begins there.

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
        self.epochs: int | None = None
        self.batches: list[EpochBatches] = []
        for name, loader in zip(self.names, self.loaders, strict=True):
            batches = loader.batch_sampler
            if not isinstance(batches, EpochBatches):
                raise ValueError(f"loader {name} gives no batches by epoch; make it with build_loader")
            if not batches.sampler.train:
                raise ValueError(f"loader {name} is for validation; build it with train=True")
            self.batches.append(batches)
            if not batches.left(0):
                size = batches.sampler.size
                raise ValueError(f"loader {name} gives no batch: its data set has {size} samples")
        self.coming: list[Iterator[dict]] = []  # by loader, and where they go on:
        self.come_to: tuple[int, int, list[int], list[int]] | None = None
        self.set_epoch(0)

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """Start at a step of an epoch, as if the run had come there on these ranks with these batch sizes."""
        self.epoch, self.step, self.turn = epoch, step, 0
        self.passes, self.seen = [0] * len(self.loaders), [0] * len(self.loaders)
        if step > self.steps_of_epoch:
            raise ValueError(f"step {step} of an epoch of {self.steps_of_epoch} steps")
        for i, batches in enumerate(self.batches):
            whole, done = batches.left(0), step * self.weights[i]
            # A pass that has just ended is only restarted when its loader's next turn comes.
            self.passes[i] = max(0, done - 1) // whole
            of_rank = (done - self.passes[i] * whole) * batches.batch_size
            sampler = batches.sampler
            self.seen[i] = min(of_rank, sampler.size // sampler.world_size) * sampler.world_size

    def state_dict(self) -> dict:
        """Plain numbers, and for each loader its name and how many samples it has."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "passes": [*self.passes],
            "seen": [*self.seen],
            "names": [*self.names],
            "sizes": [batches.sampler.size for batches in self.batches],
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
        for place, name, batches in zip(places, self.names, self.batches, strict=True):
            sampler = batches.sampler
            before = state["sizes"][place] if "sizes" in state else sampler.size
            if not 0 <= state["seen"][place] <= sampler.size:
                raise ValueError(
                    f"{state['seen'][place]} samples of {name} seen of {sampler.size}: is this the data that "
                    "the run began with?"
                )
            if before != sampler.size and (state["seen"][place] or state["passes"][place]):
                logger.warning(
                    "%s had %d samples when the epoch began, and has %d now: the rest of the epoch goes by "
                    "another order, in which some come again or not at all",
                    name,
                    before,
                    sampler.size,
                )

    @property
    def steps_of_epoch(self) -> int:
        """Joint steps of an epoch from its start to its end, on these ranks with these batch sizes."""
        return -(-self.batches[0].left(0) // self.weights[0])

    @property
    def steps(self) -> int:
        """Joint steps of this epoch: those done and those left."""
        if self.passes[0]:  # begun anew in the last step
            return self.step + (self.turn > 0)
        return self.step + -(-self.batches[0].left(self.seen[0]) // self.weights[0])

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return (self.steps - self.step) * len(self.turns)

    def __str__(self) -> str:
        """How the sets are mixed, for people: a line each."""
        lines = []
        for name, batches, weight in zip(self.names, self.batches, self.weights, strict=True):
            sampler, number, of_a_pass = batches.sampler, self.steps * weight, batches.left(0)
            lines.append(
                f"{name}: {weight} of {len(self.turns)} batches; {number:,} an epoch, "
                f"{number / of_a_pass:.2f} times through its {sampler.size:,} samples"
            )
        return "\n".join(lines)

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        if self.step == self.steps:
            return
        if self.come_to != self.place:
            self.read_on()
        for _ in range(self.steps - self.step):
            for i in self.turns:
                batch = next(self.coming[i])
                batches = self.batches[i]
                if not batches.left(self.seen[i]):
                    self.passes[i] += 1
                    self.seen[i] = 0
                ranks = batches.sampler.world_size
                left = (batches.sampler.size - self.seen[i]) // ranks
                self.seen[i] += min(batches.batch_size, left) * ranks
                self.turn = (self.turn + 1) % len(self.turns)
                self.step += self.turn == 0
                self.come_to = None if self.turn else self.place
                yield i, batch

    def read_on(self) -> None:
        """Have workers read from here on, whatever they have read so far."""
        for i, (batches, weight) in enumerate(zip(self.batches, self.weights, strict=True)):
            left, an_epoch = (self.steps - self.step) * weight, self.steps_of_epoch * weight
            batches.passes = batches.passes_from(
                self.epoch, self.passes[i], self.seen[i], left, an_epoch, self.epochs
            )
        self.coming = [iter(loader) for loader in self.loaders]

    @property
    def place(self) -> tuple[int, int, list[int], list[int]]:
        """Epoch, step, and of each loader its pass and the samples seen in it. The end of an epoch is the
        start of the next."""
        if self.step == self.steps:
            return self.epoch + 1, 0, [0] * len(self.loaders), [0] * len(self.loaders)
        return self.epoch, self.step, [*self.passes], [*self.seen]
