"""Which rank sees which sample when, in which batches; an epoch and a count are all the state there is."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

# A loader that restarts within an epoch of the joint loader goes through its data in a new order: that of
# an epoch number far from all others.
PASS_STRIDE = 1_000_000


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
        return self.keys(self.epoch, self.seen)

    def keys(self, epoch: int, seen: int) -> Iterator[tuple[int, int]]:
        """Those of an epoch behind its first `seen` samples, wherever this sampler is."""
        mine = slice(seen + self.rank, None, self.world_size)
        if not self.train:
            return ((0, index) for index in range(self.size)[mine])
        generator = torch.Generator().manual_seed(self.seed + epoch)
        left = (self.size - seen) // self.world_size
        order = torch.randperm(self.size, generator=generator)[mine][:left].numpy()
        return ((epoch, int(index)) for index in order)


class Pass(NamedTuple):
    """Batches of a sampler that follow one another: `number` of an epoch behind its first `seen` samples."""

    epoch: int
    seen: int
    number: int


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The keys of an EpochSampler in batches, the last of an epoch maybe a short one.

    It ends with the sampler's epoch; or goes on for as long as there are `passes`, so that workers read what
    comes behind the end of an epoch while its last batches are in use.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int):
        self.sampler, self.batch_size = sampler, batch_size
        self.passes: Iterable[Pass] | None = None

    def left(self, seen: int) -> int:
        """Batches of an epoch behind its first `seen` samples."""
        return -(-((self.sampler.size - seen) // self.sampler.world_size) // self.batch_size)

    def passes_from(
        self, epoch: int, number: int, seen: int, left: int, an_epoch: int, epochs: int | None
    ) -> Iterator[Pass]:
        """What is read where a joint epoch takes as many batches as it needs, beginning anew when all samples
        have been seen, and the next one starts afresh.

        epoch, number, seen, left: how often the samples have been seen whole in the first joint epoch, how
        many since, and how many batches it still takes. an_epoch: batches that each later one takes. epochs:
        ends before that one; None never ends.
        """
        while epochs is None or epoch < epochs:
            while left:
                batches = min(left, self.left(seen))
                if batches:
                    yield Pass(epoch + PASS_STRIDE * number, seen, batches)
                left -= batches
                number, seen = number + 1, 0
            epoch, number, left = epoch + 1, 0, an_epoch

    def __len__(self) -> int:
        """Batches left in the sampler's epoch."""
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch, seen, number in self.passes or [Pass(self.sampler.epoch, self.sampler.seen, len(self))]:
            keys = self.sampler.keys(epoch, seen)
            for _ in range(number):
                yield [*islice(keys, self.batch_size)]
