"""TensorBoard's files as its own reader sees them, and what wandb is told."""

import json
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from tests.trainer.runs import rows


def test_tensorboard_shows_each_step_once_after_an_interruption(arguments, tmp_path):
    settings = {"name": "board", "trainer__tensorboard": True, "trainer__save_every_steps": 2}
    assert train.main(arguments(**settings, trainer__epochs=1)) == 0
    (tmp_path / "board/checkpoint-epoch1.pth").unlink()  # as if killed before it was written
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    board = EventAccumulator(str(tmp_path / "board/tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("step/loss")] == list(range(1, 13))
    assert {"step/lr_new", "step/grad_norm", "validation/webvid_t2v_R1"} <= set(board.Tags()["scalars"])


class FakeRun:
    """Stands in for wandb, which needs an account: writes down what it is told."""

    def __init__(self):
        self.begun: list[dict] = []
        self.rows: list[dict] = []
        self.ended = 0

    def init(self, **settings):
        self.begun.append(settings)
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.ended += 1


def test_wandb_gets_the_same_run_again_after_an_interruption(arguments, tmp_path, monkeypatch):
    run = FakeRun()
    wandb = types.ModuleType("wandb")
    wandb.init = run.init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    settings = {"name": "told", "trainer__wandb": "tvts"}
    assert train.main(arguments(**settings, trainer__epochs=1)) == 0
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    first, second = run.begun
    assert (first["project"], first["name"], first["resume"]) == ("tvts", "told", "allow")
    assert first["config"]["arch"]["type"] == "TVTSv2_Demo"
    assert second["id"] == first["id"]
    assert run.ended == 2
    steps = [row for row in run.rows if "step/loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert sum("validation/webvid_t2v_R1" in row for row in run.rows) == 2
    json.dumps(run.rows)  # plain numbers


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_wandb_that_fails_is_given_up_and_the_run_goes_on(arguments, tmp_path, monkeypatch, fails):
    class CommError(Exception):
        """As wandb's own: no OSError."""

    def fail(*_, **__):
        raise CommError("the server is gone")

    run = FakeRun()
    monkeypatch.setattr(run, fails, fail)
    wandb = types.ModuleType("wandb")
    wandb.init = run.init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    settings = {"trainer__wandb": "tvts", "trainer__tensorboard": True, "data__val": []}
    settings |= {"trainer__max_steps": 4, "trainer__log_every_s": 0}  # a line for each step
    assert train.main(arguments(name="told", **settings)) == 0
    said = (tmp_path / "told/log.txt").read_text()
    assert said.count("trainer.wandb is given up for this run: CommError: the server is gone") == 1
    assert len(rows(tmp_path / "told", "step")) == 4
    assert len(run.rows) == (4 if fails == "finish" else 0)
    assert run.ended == 0
    board = EventAccumulator(str(tmp_path / "told/tensorboard"))
    board.Reload()
    assert len(board.Scalars("step/loss")) == 4  # the other board is none the worse


@pytest.mark.parametrize("there", [None, types.ModuleType("wandb")], ids=["missing", "only a folder"])
def test_wandb_asked_for_but_not_installed_is_named_before_training(
    arguments, monkeypatch, capsys, tmp_path, there
):
    monkeypatch.setitem(sys.modules, "wandb", there)
    with pytest.raises(SystemExit) as ended:
        train.main(arguments(name="told", trainer__wandb="tvts"))
    assert ended.value.code == 2
    assert "pip install wandb" in capsys.readouterr().err
