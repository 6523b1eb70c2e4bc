import json
import time

import pytest
import torch
from torch.utils.data import Dataset

from data_loader.loader import JointLoader, build_loader, turns


class Numbers(Dataset):
    """Items that tell by which key they were asked for."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        video = torch.tensor([epoch, index])
        return {
            "video": video,
            "valid_frames": 1,
            "text": [],
            "index": index,
            "id": str(index),
            "failures": [],
        }


def joint(
    sizes=(20, 9), batches=(4, 2), workers: int = 0, rank: int = 0, world_size: int = 1, weights=None
) -> JointLoader:
    common = {"train": True, "num_workers": workers, "rank": rank, "world_size": world_size}
    loaders = [build_loader(Numbers(n), b, **common) for n, b in zip(sizes, batches, strict=True)]
    return JointLoader(loaders, ["long", "short"][: len(sizes)], weights)


def drawn(loader: JointLoader) -> list[tuple[int, tuple]]:
    return [(i, tuple(map(tuple, batch["video"].tolist()))) for i, batch in loader]


def test_loaders_take_turns_for_as_long_as_the_first_lasts():
    loader = joint()
    assert (loader.steps, len(loader)) == (5, 10)
    batches = drawn(loader)
    assert [i for i, _ in batches] == [0, 1] * 5
    assert sorted(index for i, keys in batches if i == 0 for _, index in keys) == list(range(20))
    assert len(loader) == 0


def test_a_shorter_loader_restarts_in_a_new_order():
    batches = [keys for i, keys in drawn(joint(sizes=(40, 9))) if i == 1]
    first, second = batches[:5], batches[5:10]  # nine samples in batches of two
    assert [len(keys) for keys in first] == [2, 2, 2, 2, 1]
    indices = [[index for keys in part for _, index in keys] for part in (first, second)]
    assert sorted(indices[0]) == sorted(indices[1]) == list(range(9))
    assert indices[0] != indices[1]
    assert len({epoch for keys in first + second for epoch, _ in keys}) == 2


def test_a_longer_loader_is_cut_off_and_starts_afresh():
    loader = joint(sizes=(8, 100))
    assert len(drawn(loader)) == 4
    loader.set_epoch(1)
    keys = [key for i, part in drawn(loader) if i == 1 for key in part]
    assert {epoch for epoch, _ in keys} == {1}


def test_epochs_differ_and_repeat():
    loader = joint()
    first = drawn(loader)
    loader.set_epoch(1)
    second = drawn(loader)
    loader.set_epoch(0)
    assert drawn(loader) == first != second


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_continues_with_the_same_batches(workers):
    whole = joint(workers=workers)
    whole.set_epoch(2)
    expected = drawn(whole)
    for step in range(6):
        part = joint(workers=workers)
        part.set_epoch(2)
        for _, _batch in zip(range(2 * step), part, strict=False):
            pass
        state = json.loads(json.dumps(part.state_dict()))
        assert (state["epoch"], state["step"]) == (2, step)
        whole.load_state_dict(state)
        assert (whole.steps, len(whole)) == (5, 10 - 2 * step)
        assert drawn(whole) == expected[2 * step :]


@pytest.mark.parametrize("step", range(6))
def test_a_step_is_enough_to_continue_on_the_same_ranks(step):
    loader = joint(sizes=(21, 5), batches=(2, 2), rank=1, world_size=2)
    loader.set_epoch(3)
    expected = drawn(loader)
    assert len(expected) == 10
    loader.set_epoch(3, step)
    assert drawn(loader) == expected[2 * step :]


@pytest.mark.parametrize(("old", "new"), [(2, 1), (2, 4), (1, 2)])
def test_another_number_of_ranks_sees_the_rest_of_the_epoch(old, new):
    seen, states = [], []
    for rank in range(old):
        loader = joint(sizes=(48, 40), batches=(4, 2), rank=rank, world_size=old)
        for _, (i, batch) in zip(range(4), loader, strict=False):
            seen += [(i, int(index)) for index in batch["index"]]
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)
    for rank in range(new):
        loader = joint(sizes=(48, 40), batches=(4, 2), rank=rank, world_size=new)
        loader.load_state_dict(states[0])
        seen += [(i, index) for i, keys in drawn(loader) for _, index in keys if i == 0]
    first = [index for i, index in seen if i == 0]
    assert sorted(first) == list(range(48))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1, 1, 1], [0, 1, 2]), ([3, 1], [0, 0, 1, 0]), ([1, 2], [1, 0, 1]), ([2, 4], [1, 0, 1, 1, 0, 1])],
)
def test_turns_are_spread_evenly(weights, expected):
    assert turns(weights) == expected


def test_an_epoch_by_weights_sees_the_first_set_once_and_fills_its_last_step():
    loader = joint(sizes=(20, 9), batches=(4, 2), weights=[3, 1])  # 5 batches of the first, 3 a step
    assert (loader.steps, len(loader)) == (2, 8)
    batches = drawn(loader)
    assert [i for i, _ in batches] == [0, 0, 1, 0] * 2
    first = [index for i, keys in batches if i == 0 for _, index in keys]
    assert sorted(first[:20]) == list(range(20))
    assert len(first) == 24  # a batch of its next pass
    assert len(loader) == 0
    assert str(joint(weights=[3, 1])).splitlines() == [
        "long: 3 of 4 batches; 6 an epoch, 1.20 times through its 20 samples",
        "short: 1 of 4 batches; 2 an epoch, 0.40 times through its 9 samples",
    ]


@pytest.mark.parametrize("weights", [[3, 1], [1, 3], [2, 2], [5, 1], [7, 2]])
def test_a_state_continues_a_mixture(weights):
    whole = joint(sizes=(21, 9), batches=(2, 2), rank=1, world_size=2, weights=weights)
    whole.set_epoch(1)
    expected = drawn(whole)
    for step in range(whole.steps + 1):
        part = joint(sizes=(21, 9), batches=(2, 2), rank=1, world_size=2, weights=weights)
        part.set_epoch(1)
        for _, _batch in zip(range(step * sum(weights)), part, strict=False):
            pass
        whole.load_state_dict(json.loads(json.dumps(part.state_dict())))
        assert len(whole) == len(expected) - step * sum(weights)
        assert drawn(whole) == expected[step * sum(weights) :]
        whole.set_epoch(1, step)
        assert drawn(whole) == expected[step * sum(weights) :]


def test_a_state_is_put_back_by_names():
    first = joint(sizes=(40, 20), batches=(2, 2))
    for _ in zip(range(6), first, strict=False):
        pass
    other = JointLoader(first.loaders[::-1], ["short", "long"], [2, 1])
    other.load_state_dict(first.state_dict())
    assert (other.step, other.seen, other.turn) == (3, [6, 6], 0)
    renamed = JointLoader(first.loaders, ["long", "new"])
    with pytest.raises(ValueError, match=r"were long, short, and now are long, new.*arch\.start_from"):
        renamed.load_state_dict(first.state_dict())
    old = {key: value for key, value in first.state_dict().items() if key not in ("names", "sizes")}
    renamed.load_state_dict(old)  # of a checkpoint written before there were names
    assert renamed.seen == [6, 6]


def test_a_set_that_has_grown_since_the_epoch_began_is_named(caplog):
    before = joint(sizes=(8, 40), batches=(2, 2))
    joint(sizes=(8, 44), batches=(2, 2)).load_state_dict(before.state_dict())
    assert not caplog.messages  # at the start of an epoch nothing is lost
    for _ in zip(range(2), before, strict=False):
        pass
    joint(sizes=(8, 44), batches=(2, 2)).load_state_dict(before.state_dict())
    assert ["short had 40 samples when the epoch began, and has 44 now" in m for m in caplog.messages] == [
        True
    ]


def test_one_loader_alone():
    assert [i for i, _ in drawn(joint(sizes=(8,), batches=(4,)))] == [0, 0]


def test_impossible_joint_loaders():
    with pytest.raises(ValueError, match="no loaders"):
        JointLoader([])
    validation = build_loader(Numbers(4), 2, train=False)
    with pytest.raises(ValueError, match="loader 0 is for validation"):
        JointLoader([validation])
    with pytest.raises(ValueError, match=r"weights \[1, 0\]: each must be a whole number from 1 on"):
        joint(weights=[1, 0])
    loader = joint()
    with pytest.raises(ValueError, match="step 6 of an epoch of 5 steps"):
        loader.set_epoch(0, 6)
    with pytest.raises(ValueError, match="a state of 1 loaders does not fit 2"):
        loader.load_state_dict({"epoch": 0, "step": 0, "passes": [0], "seen": [0]})


class Logged(Numbers):
    """Notes in a file, in one write each, what is read."""

    def __init__(self, size: int, log):
        super().__init__(size)
        self.log = log

    def __getitem__(self, key):
        with open(self.log, "a") as file:
            file.write(f"{key[0]} {key[1]}\n")
        return super().__getitem__(key)

    def read(self) -> list[tuple[int, int]]:
        return [tuple(map(int, line.split())) for line in self.log.read_text().splitlines()]


def logged(folder, workers=2, sizes=(40, 9), batches=(2, 2)) -> JointLoader:
    sets = [Logged(size, folder / f"{i}.txt") for i, size in enumerate(sizes)]
    return JointLoader(
        [build_loader(s, b, train=True, num_workers=workers) for s, b in zip(sets, batches, strict=True)]
    )


def until(happened, seconds: float = 300) -> None:
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def fresh(epoch: int, **options) -> list:
    loader = joint(**options)
    loader.set_epoch(epoch)
    return drawn(loader)


def test_the_next_epoch_is_read_while_the_last_batches_are_in_use(tmp_path):
    loader = logged(tmp_path)
    options = {"sizes": (40, 9), "batches": (2, 2)}
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert drawn(loader) == fresh(epoch, **options)
        assert len(loader) == 0
        for dataset in (part.dataset for part in loader.loaders):
            until(lambda d=dataset, n=epoch + 1: any(number == n for number, _ in d.read()))
    first = loader.loaders[0].dataset.read()
    assert len(first) == len(set(first))  # nothing is read twice


def test_nothing_is_read_beyond_the_last_epoch(tmp_path):
    loader = logged(tmp_path)
    loader.epochs = 2
    for epoch in range(2):
        loader.set_epoch(epoch)
        assert drawn(loader) == fresh(epoch, sizes=(40, 9), batches=(2, 2))
    time.sleep(0.5)
    assert sorted(loader.loaders[0].dataset.read()) == [(e, i) for e in range(2) for i in range(40)]
    assert (
        len(loader.loaders[1].dataset.read()) == 2 * 36
    )  # 20 batches: four times through 9, the last one short


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_read_ahead_is_dropped_where_the_run_goes_on_elsewhere(tmp_path, workers):
    options = {"sizes": (40, 9), "batches": (2, 2)}
    loader = logged(tmp_path, workers)
    for _ in zip(range(6), loader, strict=False):
        pass
    state = loader.state_dict()
    loader.set_epoch(5)
    assert drawn(loader) == fresh(5, **options)
    loader.load_state_dict(state)
    assert drawn(loader) == fresh(0, **options)[6:]
    loader.set_epoch(1)
    for _ in zip(range(3), loader, strict=False):  # in the middle of a joint step
        pass
    loader.set_epoch(1)
    assert drawn(loader) == fresh(1, **options)


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [2, 5]])
def test_iterating_on_across_epochs_is_iterating_from_each_place(weights):
    options = {"sizes": (21, 9), "batches": (2, 2), "rank": 1, "world_size": 2, "weights": weights}
    going = joint(workers=1, **options)
    for epoch in range(3):
        going.set_epoch(epoch)
        expected = fresh(epoch, **options)
        begun = sum(weights) * (epoch % 2)  # stopped after a joint step, and gone on
        first = [
            (i, tuple(map(tuple, b["video"].tolist())))
            for _, (i, b) in zip(range(begun), going, strict=False)
        ]
        resumed = joint(**options)
        resumed.load_state_dict(json.loads(json.dumps(going.state_dict())))
        assert first + drawn(going) == expected == first + drawn(resumed)
