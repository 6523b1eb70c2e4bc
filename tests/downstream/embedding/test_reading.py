"""Batches put together from what several workers read."""

import os
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from data_loader.failures import Failure
from data_loader.resize import DeferredResize
from data_loader.transforms import FeatureTransform
from downstream.embedding.reading import PIECE_CLIPS, collate_clips, join_pieces, read_batches

CPU = torch.device("cpu")


class Numbers(Dataset):
    """Clips filled with their index; those of `missing` cannot be read."""

    def __init__(self, missing=()):
        self.missing = missing

    def __getitem__(self, i):
        if i in self.missing:
            return {"index": i, "missing": Failure(f"{i}.mp4", "gone")}
        return {"index": i, "video": torch.full((2, 3, 4, 4), i, dtype=torch.uint8), "valid_frames": i % 3}


def process_ids(items):
    return {"process": [os.getpid() for _ in items]}


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [7, 16, 30])
def test_batches_are_those_of_one_reader(workers, batch_size):
    dataset, indices = Numbers(missing={3, 17}), [*range(40, 0, -1)]
    batches = list(read_batches(dataset, indices, batch_size, collate_clips, num_workers=workers, device=CPU))
    starts = range(0, len(indices), batch_size)
    expected = [collate_clips([dataset[i] for i in indices[at : at + batch_size]]) for at in starts]
    assert len(batches) == len(expected)
    for batch, whole in zip(batches, expected, strict=True):
        assert batch.keys() == whole.keys()
        for key, value in whole.items():
            if key == "video":
                assert torch.equal(batch[key], torch.cat(value))
            elif isinstance(value, torch.Tensor):
                assert torch.equal(batch[key], value), key
            else:
                assert batch[key] == value, key


def test_all_workers_read_the_first_batch():
    batch = next(read_batches(Numbers(), range(48), 48, process_ids, num_workers=3, device=CPU))
    assert len(batch["process"]) == 48
    assert len(set(batch["process"]) - {os.getpid()}) == 3


def test_items_of_many_clips_come_one_by_one():
    options = {"num_workers": 2, "device": CPU, "clips_an_item": 2 * PIECE_CLIPS}
    batch = next(read_batches(Numbers(), range(3), 3, process_ids, **options))
    assert len(set(batch["process"])) == 2


class Counted(Numbers):
    """Says in a file which items were read."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __getitem__(self, i):
        with open(self.log, "a") as log:
            log.write(f"{i}\n")
        return super().__getitem__(i)


@pytest.mark.parametrize("clips_an_item, most", [(1, 8 + 2 * 24), (16, 1 + 2 * 2), (32, 1 + 2), (69, 1 + 2)])
def test_of_items_of_many_clips_few_lie_ready(tmp_path, clips_an_item, most):
    options = {"num_workers": 2, "device": CPU, "clips_an_item": clips_an_item}
    size = max(1, 8 // clips_an_item)
    batches = read_batches(Counted(tmp_path / "log"), range(400), size, collate_clips, **options)
    next(batches)
    time.sleep(1)  # the workers go as far ahead as they may
    batches.close()
    assert len((tmp_path / "log").read_text().split()) <= most


def test_a_batch_that_nobody_could_read():
    batches = read_batches(Numbers(missing=range(9)), range(9), 9, collate_clips, num_workers=2, device=CPU)
    assert list(batches) == [
        {"index": [], "metadata": [], "missing": {i: Failure(f"{i}.mp4", "gone") for i in range(9)}}
    ]


def test_no_items():
    assert list(read_batches(Numbers(), [], 4, collate_clips, num_workers=2, device=CPU)) == []


def test_what_a_piece_lacks_comes_from_the_others():
    readable = {"rows": [1], "failures": {}, "video": torch.ones(1, 2)}
    nothing = {"rows": [], "failures": {0: "damaged"}}
    batch = join_pieces([nothing, readable, nothing | {"failures": {2: "gone"}}], CPU)
    assert batch["rows"] == [1] and batch["failures"] == {0: "damaged", 2: "gone"}
    assert torch.equal(batch["video"], torch.ones(1, 2))


class ManySizes(Dataset):
    """Clips of sizes that change from one to the next, colours last in memory as decoders give them."""

    sizes = (256, 340), (256, 340), (40, 30), (256, 455), (17, 64), (17, 64), (360, 640)

    def __init__(self, transform):
        self.transform = transform

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 256, (2, *self.sizes[i % len(self.sizes)], 3), dtype=np.uint8)
        return {"index": i, "video": self.transform(torch.from_numpy(pixels).movedim(-1, 1))}


@pytest.mark.parametrize("workers", [0, 2])
def test_resizing_on_the_device_gives_the_pixels_of_resizing_in_workers(workers):
    whole = FeatureTransform(64)
    deferred = DeferredResize(whole)
    options = {"num_workers": workers, "device": torch.device("cuda" if torch.cuda.is_available() else "cpu")}
    expected = read_batches(ManySizes(whole), range(20), 9, collate_clips, **options)
    found = read_batches(ManySizes(deferred), range(20), 9, collate_clips, finish=deferred.finish, **options)
    for batch, other in zip(found, expected, strict=True):
        assert batch["index"] == other["index"] and torch.equal(batch["video"], other["video"])


def test_colours_stay_last_in_memory_on_their_way():
    items = [ManySizes(lambda frames: frames)[i] for i in range(3)]
    batch = collate_clips(items)
    assert [[*run.shape] for run in batch["video"]] == [[2, 2, 3, 256, 340], [1, 2, 3, 40, 30]]
    assert all(run.movedim(2, -1).is_contiguous() for run in batch["video"])
    assert torch.equal(batch["video"][1][0], items[2]["video"])
