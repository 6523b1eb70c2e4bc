"""Distributed checkpoints, of one process here: whole or absent, of this model, and read to the bit.

What several processes write and read is in test_engine.py.
"""

import os

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from tests.trainer.test_checkpoint import STATE, save
from trainer.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    read_checkpoint,
    read_newest,
    remove_old,
    restore,
)
from trainer.sharded import save_sharded
from utils.processes import DistContext

ALONE = DistContext(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


class Weight(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(size))


def save_distributed(folder, epoch):
    state = {**STATE, "optimizer": {"state": {}, "param_groups": []}, "epoch": epoch, "global_step": epoch}
    path = checkpoint_path(folder, epoch, 0, sharded=True)
    save_sharded(state, path, ALONE)
    return path


def test_distributed_checkpoints_stand_among_the_others_and_only_whole_ones_count(tmp_path, caplog):
    whole, cut, half = (save_distributed(tmp_path, epoch) for epoch in (2, 3, 4))
    save(tmp_path, 1, 0)
    shard = next(cut.glob("*.safetensors"))
    os.truncate(shard, shard.stat().st_size // 2)
    (half / "files.json").unlink()
    path, state = read_newest(tmp_path)
    assert path == whole
    assert state["global_step"] == 2
    assert f"{shard.name} missing or cut short" in caplog.text
    assert "files.json is missing" in caplog.text
    remove_old(tmp_path, keep=1)
    assert list_checkpoints(tmp_path) == [half, cut, whole]  # epoch 1 is gone; what is damaged does not count


def test_distributed_write_that_fails_leaves_the_earlier_folder(tmp_path, monkeypatch):
    path = save_distributed(tmp_path, 1)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"checkpoint-epoch1\.dcp.*No space left"):
        save_distributed(tmp_path, 1)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_distributed_checkpoint_of_another_model_is_refused(tmp_path):
    path = save_distributed(tmp_path, 1)
    others = {"other names": torch.nn.Linear(2, 2), r"\[1000\] there, \[3\] here": Weight(3)}
    for message, model in others.items():
        with pytest.raises(ValueError, match=message):
            restore(path, read_checkpoint(path), model, torch.optim.AdamW(model.parameters()), ALONE)


def trained(frozen: str = "", steps: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small model and its optimiser after some steps; a parameter by the name `frozen` is not trained."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    parameters = [p for name, p in model.named_parameters() if name != frozen]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    go_on(model, optimizer, steps)
    return model, optimizer


def go_on(model, optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((5, 4), 0.1 * step)).square().sum().backward()
        optimizer.step()


def save_trained(folder, model, optimizer_state):
    path = checkpoint_path(folder, 1, 0, sharded=True)
    state = {**STATE, "state_dict": model.state_dict(), "optimizer": optimizer_state}
    save_sharded({**state, "epoch": 1, "global_step": 3}, path, ALONE)
    return path


@pytest.mark.parametrize("by_name", [True, False])
def test_training_goes_on_to_the_bit_by_names_and_by_the_numbers_of_older_ones(tmp_path, by_name):
    model, optimizer = trained()
    state = get_optimizer_state_dict(model, optimizer) if by_name else optimizer.state_dict()
    path = save_trained(tmp_path, model, state)
    go_on(model, optimizer, 3)
    again, optimizer_again = trained(steps=0)
    restore(path, read_checkpoint(path), again, optimizer_again, ALONE)
    go_on(again, optimizer_again, 3)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("by_name", [True, False])
def test_a_run_that_trained_other_parameters_is_refused(tmp_path, by_name):
    model, optimizer = trained(frozen="1.bias")
    state = get_optimizer_state_dict(model, optimizer) if by_name else optimizer.state_dict()
    path = save_trained(tmp_path, model, state)
    with pytest.raises(ValueError, match=r"trained other parameters: .*; set arch as it was there"):
        restore(path, read_checkpoint(path), *trained(steps=0), ALONE)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model, optimizer = trained()
    torch.nn.init.constant_(model[1].bias, float("nan"))
    path = save_trained(tmp_path, model, get_optimizer_state_dict(model, optimizer))
    with pytest.raises(ValueError, match=r"1\.bias holds NaN or infinity"):
        restore(path, read_checkpoint(path), *trained(steps=0), ALONE)
