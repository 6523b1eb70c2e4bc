"""Whole epochs over two thousand videos, broken ones among them: counts, and memory that stays flat."""

import multiprocessing
import os
import sys

import pytest

from data_loader import JointLoader, UnreadableCounter, build_dataset, build_loader
from data_loader.strings import Strings
from tests.data_loader import worlds
from tests.data_loader.worlds import options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MB = 2**20


def private_memory(pid: int) -> int:
    """Bytes that a process shares with no other."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_"))


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def grown_by(records, pipe) -> None:
    before = private_memory(os.getpid())
    total = sum(len(records[i]) for i in range(len(records)))
    pipe.send((private_memory(os.getpid()) - before, total))


def test_reading_all_records_copies_nothing_into_a_worker():
    count = 300_000
    records = Strings(f"caption number {i:08d}, long enough to be one" for i in range(count))
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=grown_by, args=(records, theirs))
    worker.start()
    grown, total = ours.recv()
    worker.join()
    assert total == count * len(records[0]) > 10 * MB
    assert grown < 3 * MB


@pytest.mark.heavy
def test_an_epoch_over_two_thousand_videos(tmp_path):
    """YT-Temporal and WebVid, 1,000 videos each, twice: readable ones all seen, broken ones all counted.

    As a run is set up: two workers a set that stay from epoch to epoch, and a child of each that decodes.
    """
    worlds.webvid(tmp_path / "webvid", train=1000, val=1)
    worlds.yttemporal(tmp_path / "yt", train=1000, val=1)
    broken = set()
    for i in range(0, 1000, 125):
        broken.add(worlds.break_file(tmp_path / f"webvid/data/train/{i % 2:03d}/{i}.mp4"))
        broken.add(worlds.break_file(tmp_path / f"yt/data/videos/subset_87/data/train{i + 1}.mp4"))
    mask = {"mask_ratio": 0.5, "num_patches": 4, "timeout": 60}
    datasets = [
        build_dataset(kind, "train", **mask, **options(tmp_path / folder))
        for kind, folder in (("yttemporal", "yt"), ("webvid", "webvid"))
    ]
    joint = JointLoader([build_loader(d, 10, train=True, num_workers=2) for d in datasets])
    counter = UnreadableCounter(max_fraction=0.02)
    memory, processes = [], set()
    for epoch in range(2):
        counter.start_epoch()
        joint.set_epoch(epoch)
        seen = [set(), set()]
        for number, (i, batch) in enumerate(joint):
            counter.update(batch)
            counter.raise_if_too_many(counter.read, counter.failed)
            seen[i] |= set(batch["index"].tolist())
            if number % 20 == 19:
                workers = [worker.pid for worker in multiprocessing.active_children()]
                children = [child for pid in workers for child in children_of(pid)]
                processes.add((*sorted(workers), *sorted(children)))
                memory.append(sum(private_memory(pid) for pid in [os.getpid(), *workers, *children]))
        assert counter.read == 2000
        # a replacement may be broken too, and is then counted as well
        assert len(broken) <= counter.failed <= len(broken) + 4
        assert [len(indices) for indices in seen] == [1000 - 8, 1000 - 8]
    [same] = processes  # nothing was started anew
    assert len(same) == 2 * (2 + 2)
    assert set(counter.files) == {str(path) for path in broken}
    print("MB:", [round(bytes_ / MB) for bytes_ in memory])
    # after the first quarter of the first epoch nothing may grow from one epoch to the next
    assert max(memory[10:]) - max(memory[3:10]) < 3 * MB * (1 + len(same))
