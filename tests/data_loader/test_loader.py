import os

import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from data_loader import EpochSampler, build_dataset, build_loader
from data_loader.loader import NICENESS
from tests.data_loader import worlds
from tests.data_loader.worlds import options
from tests.trainer.runs import wait_until
from tests.trainer.test_signals import children, runs


def of_all_ranks(size: int, world_size: int, train: bool, epoch: int = 0, seen: int = 0) -> list[list[int]]:
    samplers = [EpochSampler(size, train, rank, world_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(epoch, seen)
    parts = [[index for _, index in sampler] for sampler in samplers]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers]
    return parts


@pytest.mark.parametrize(("size", "world_size"), [(23, 1), (23, 4), (24, 4), (7, 7)])
def test_training_drops_the_remainder_and_ranks_are_disjoint(size, world_size):
    parts = of_all_ranks(size, world_size, train=True)
    assert {len(part) for part in parts} == {size // world_size}
    drawn = [index for part in parts for index in part]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(("size", "world_size"), [(23, 1), (23, 4), (24, 4), (3, 5)])
def test_validation_has_each_sample_once(size, world_size):
    parts = of_all_ranks(size, world_size, train=False)
    assert sorted(index for part in parts for index in part) == list(range(size))


@pytest.mark.parametrize("world_size", [1, 3])
def test_training_agrees_with_torchs_distributed_sampler(world_size):
    for rank in range(world_size):
        theirs = DistributedSampler(range(20), world_size, rank, shuffle=True, seed=5, drop_last=True)
        ours = EpochSampler(20, True, rank, world_size, seed=5)
        for epoch in (0, 3):
            theirs.set_epoch(epoch)
            ours.set_epoch(epoch)
            assert [index for _, index in ours] == list(theirs)


def test_epochs_differ_in_training_alone():
    assert of_all_ranks(50, 2, True, epoch=0) != of_all_ranks(50, 2, True, epoch=1)
    sampler = EpochSampler(5, train=False)
    sampler.set_epoch(3)
    assert list(sampler) == [(0, i) for i in range(5)]  # the same frames at every validation
    sampler = EpochSampler(5, train=True)
    sampler.set_epoch(3)
    assert {epoch for epoch, _ in sampler} == {3}


@pytest.mark.parametrize("train", [True, False])
def test_the_samples_not_seen_yet_follow(train):
    whole = of_all_ranks(41, 2, train)
    rest = of_all_ranks(41, 2, train, seen=12)
    assert rest == [part[6:] for part in whole]


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_another_number_of_ranks_takes_over_the_samples_not_seen_yet(world_size):
    before = {index for part in of_all_ranks(41, 2, True) for index in part[:6]}
    after = [index for part in of_all_ranks(41, world_size, True, seen=12) for index in part]
    assert len(after) == len(set(after)) == (41 - 12) // world_size * world_size
    assert not before & set(after)


def test_impossible_samplers():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        EpochSampler(10, True, 2, 2)
    with pytest.raises(ValueError, match="3 samples are too few for 4 ranks"):
        EpochSampler(3, True, 0, 4)
    with pytest.raises(ValueError, match="12 samples seen of 10"):
        EpochSampler(10, True).set_epoch(0, 12)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = worlds.webvid(tmp_path_factory.mktemp("webvid"))
    worlds.break_file(folder / "data/train/000/4.mp4")
    return folder


def epoch(loader, number: int) -> list[dict]:
    loader.batch_sampler.sampler.set_epoch(number)
    return list(loader)


def identical(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x["video"], y["video"])
        and torch.equal(x["keep_ind"], y["keep_ind"])
        and (x["text"], x["id"], x["failures"]) == (y["text"], y["id"], y["failures"])
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.heavy
@pytest.mark.parametrize("context", [None, pytest.param("spawn", marks=pytest.mark.heavy)])
def test_workers_change_nothing(world, context):
    dataset = build_dataset("webvid", "train", mask_ratio=0.5, num_patches=4, **options(world))
    alone = build_loader(dataset, 3, train=True)
    helped = build_loader(dataset, 3, train=True, num_workers=2, context=context)
    first = epoch(alone, 0)
    assert [len(batch["index"]) for batch in first] == [3, 3, 2]  # the last short batch is kept
    assert sum(len(batch["failures"]) for batch in first) == 1
    for number in (0, 1):
        assert identical(epoch(alone, number), epoch(helped, number))
    assert not identical(first, epoch(alone, 1))


def test_workers_persist_over_epochs(world):
    dataset = build_dataset("webvid", "train", timeout=60, **options(world))
    loader = build_loader(dataset, 2, train=True, num_workers=2)
    pids = []
    for number in range(3):
        assert sum(len(batch["index"]) for batch in epoch(loader, number)) == 8
        pids.append(sorted(worker.pid for worker in loader._iterator._workers))
    assert len(set(pids[0])) == 2
    assert pids[0] == pids[1] == pids[2]
    assert all(worker.is_alive() for worker in loader._iterator._workers)


def test_workers_of_validation_and_their_decoders_end_with_it(world):
    dataset = build_dataset("webvid", "val", timeout=60, **options(world))
    loader = build_loader(dataset, 2, train=False, num_workers=8)
    assert loader.num_workers == 2  # as many as there are batches
    before = set(children(os.getpid()))
    batches = iter(loader)
    first = next(batches)
    family = set(children(os.getpid())) - before
    assert len(family) >= 3  # workers, and decoders by now
    assert [first["index"].tolist(), *(batch["index"].tolist() for batch in batches)] == [[0, 1], [2, 3]]
    wait_until(lambda: not any(map(runs, family)))


class Niceness(torch.utils.data.Dataset):
    """How far the process that reads an item stands back."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"index": os.nice(0), "id": "", "failures": [], "text": []}


def test_workers_stand_back_behind_the_process_that_trains():
    (batch,) = build_loader(Niceness(), 2, train=False, num_workers=1)
    assert batch["index"].tolist() == [min(19, os.nice(0) + NICENESS)] * 2


@pytest.mark.parametrize("cuda", [True, False])
def test_memory_is_pinned_where_there_is_a_gpu(world, monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    dataset = build_dataset("webvid", "train", **options(world))
    assert build_loader(dataset, 2, train=True).pin_memory is cuda
    assert build_loader(dataset, 2, train=True, pin_memory=False).pin_memory is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU's driver pins memory")
def test_batches_of_workers_arrive_pinned(world):
    dataset = build_dataset("webvid", "train", mask_ratio=0.5, num_patches=4, **options(world))
    batch = next(iter(build_loader(dataset, 2, train=True, num_workers=2)))
    assert batch["video"].is_pinned() and batch["keep_ind"].is_pinned()
    assert batch["video"].dtype == torch.uint8


def test_a_loader_leaves_the_global_generator_alone(world):
    dataset = build_dataset("webvid", "train", **options(world))
    before = torch.random.get_rng_state()
    list(build_loader(dataset, 4, train=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_validation_of_two_ranks_sees_what_one_sees(world):
    dataset = build_dataset("webvid", "val", mask_ratio=0.5, num_patches=4, **options(world))
    alone = list(build_loader(dataset, 1, train=False))
    ranks = [list(build_loader(dataset, 1, train=False, rank=r, world_size=2)) for r in range(2)]
    assert identical([alone[0], alone[2], alone[1], alone[3]], ranks[0] + ranks[1])
