"""Checkpoints written beside the training: of one moment, one after the other, and no error is lost.

That sharded ones are, while the next steps change the weights, is in test_engine.py.
"""

import logging
import threading

import pytest
import torch

import train
from tests.trainer.runs import rows
from tests.trainer.test_checkpoint import STATE
from trainer import checkpoint
from trainer.checkpoint import list_checkpoints, read_checkpoint
from trainer.saving import CheckpointWriter
from trainer.signals import Stopped
from utils.files import RunWriteError
from utils.processes import DistContext

ALONE = DistContext(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


@pytest.fixture
def writer() -> CheckpointWriter:
    return CheckpointWriter(ALONE, sharded=False, keep=2, timeout_s=100)


def state(weight: torch.Tensor, **more) -> dict:
    return {**STATE, "epoch": 1, "global_step": 1, "state_dict": {"w": weight}, **more}


def test_a_checkpoint_is_of_the_moment_of_saving(writer, tmp_path):
    weight, rates = torch.arange(6.0).view(2, 3).t(), [0.1]
    held = threading.Event()
    with writer:
        writer.submit(held.wait)
        saved = state(weight, optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "rates": rates})
        writer.jobs.clear()  # `save` would wait for what is held
        writer.save(saved, tmp_path / "checkpoint-epoch1.pth")
        weight.zero_()  # as the next steps do
        rates[0] = 0.2
        held.set()
    read = read_checkpoint(tmp_path / "checkpoint-epoch1.pth")
    assert torch.equal(read["state_dict"]["w"], torch.arange(6.0).view(2, 3).t())
    assert read["optimizer"] == {"state": {0: {"step": torch.tensor(3.0)}}, "rates": [0.1]}


def test_one_is_whole_before_the_next_is_copied_and_old_ones_go(writer, tmp_path):
    with writer:
        for epoch in (1, 2, 3):
            writer.save(
                state(torch.full((100_000,), float(epoch))), tmp_path / f"checkpoint-epoch{epoch}.pth"
            )
            assert len(writer.jobs) == 1
            if epoch > 1:
                assert read_checkpoint(tmp_path / f"checkpoint-epoch{epoch - 1}.pth")
    newest = list_checkpoints(tmp_path)
    assert [path.name for path in newest] == ["checkpoint-epoch3.pth", "checkpoint-epoch2.pth"]
    for path, value in zip(newest, (3.0, 2.0), strict=True):
        assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.full((100_000,), value))


def nowhere(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "checkpoint-epoch1.pth"


def test_the_next_call_raises_what_went_wrong(writer, tmp_path):
    writer.save(state(torch.ones(3)), nowhere(tmp_path))
    with pytest.raises(RunWriteError, match=r"could not write .*checkpoint-epoch1\.pth.*--resume auto"):
        writer.save(state(torch.ones(3)), tmp_path / "checkpoint-epoch2.pth")
    writer.raise_failure()  # once
    assert not list_checkpoints(tmp_path)


@pytest.mark.parametrize("end", [None, Stopped("told to")])
def test_the_end_raises_what_went_wrong(writer, tmp_path, end):
    with pytest.raises(RunWriteError), writer:
        writer.save(state(torch.ones(3)), nowhere(tmp_path))
        if end:
            raise end


def test_at_the_end_by_another_error_it_is_said(writer, tmp_path, caplog):
    with pytest.raises(FloatingPointError), caplog.at_level(logging.ERROR), writer:
        writer.save(state(torch.ones(3)), nowhere(tmp_path))
        raise FloatingPointError("loss nan")
    assert "the last checkpoint is not whole: could not write" in caplog.text


def test_a_run_trains_on_while_its_checkpoint_is_written_and_ends_when_it_is_whole(
    arguments, tmp_path, monkeypatch
):
    plain, run_dir, seen = checkpoint.save_atomically, tmp_path / "beside", []

    def held(state, path):
        """The first one stays unwritten until the run has logged a step beyond it."""
        while not seen and not any(row["step"] > 2 for row in rows(run_dir, "step")):
            threading.Event().wait(0.01)
        seen.append(path.name)
        plain(state, path)

    monkeypatch.setattr(checkpoint, "save_atomically", held)
    settings = {"trainer__save_every_steps": 2, "trainer__log_every_s": 0, "data__val": []}
    assert train.main(arguments(name="beside", trainer__max_steps=6, **settings)) == 0
    assert seen == ["checkpoint-epoch0-step1.pth", "checkpoint-epoch0-step2.pth", "checkpoint-epoch1.pth"]
    assert read_checkpoint(run_dir / seen[-1])["global_step"] == 6
    assert read_checkpoint(run_dir / seen[0])["global_step"] == 2
    assert "wrote checkpoint-epoch1.pth in" in (run_dir / "log.txt").read_text()
