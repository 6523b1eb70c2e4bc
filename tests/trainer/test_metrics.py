"""What a run measures and writes: log lines, TensorBoard's files, what wandb gets, the best checkpoint."""

import json
import os
import sys
import time
import types

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from model import create_model
from model.flops import train_flops_per_clip
from tests.trainer.runs import rows
from trainer import metrics
from trainer.checkpoint import BEST_NAME, mark_best
from trainer.metrics import Monitor, StepMeter
from utils.config import ConfigError
from utils.processes import DistContext

BATCH = {
    "video": torch.zeros(4, 12, 3, 64, 64, dtype=torch.uint8),
    "text": torch.ones(16, 77, dtype=torch.int64),
    "keep_ind": torch.zeros(4, 8, dtype=torch.int64),
}
RATES = {"lr_new": 1e-4, "lr_clip": 1e-7}


@pytest.fixture
def meter(monkeypatch):
    """The meter of rank 0 of 2, on a card with a known peak and by a clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(metrics, "peak_tflops", lambda name: 0.01)  # as small a card as the model
    meter = StepMeter(create_model("TVTSv2_Demo"), DistContext(0, 2, 0, torch.device("cpu")))
    meter.clock = now
    return meter


def add(meter, step: int, name: str = "yttemporal", **losses: float) -> None:
    tensors = {key: torch.tensor(value) for key, value in losses.items()}
    meter.add(step, name, BATCH, tensors, torch.tensor(2.0), RATES)


def test_a_line_has_losses_rates_norm_speed_waiting_and_utilisation(meter):
    def slow_loader():
        for _ in range(2):
            meter.clock[0] += 1.0
            yield BATCH

    for step, _ in enumerate(meter.timed(slow_loader()), start=1):
        meter.clock[0] += 3.0
        add(meter, step, loss=3.0 + step, contrastive=2.0, sorting=1.0 + step)
    found, line = meter.flush()
    assert [row["loss"] for row in found] == [4.0, 5.0]
    assert found[1]["clips_per_s"] == 2  # 2 steps of 4 clips on 2 ranks, 8 s
    assert found[1]["data_wait"] == 0.25
    flops = train_flops_per_clip(meter.model.variant, num_frames=12, kept_patches=8, texts=4, text_len=77)
    assert found[1]["mfu"] == pytest.approx(8 * flops / 8 / 1e10, abs=1e-4)
    for part in ("loss 4.500", "contrastive 2.000", "sorting 2.500", "lr 1.0e-04 / 1.0e-07", "grad 2.00"):
        assert part in line
    assert "2.0 clips/s  data wait 25 %" in line
    assert "MFU" in line
    assert meter.flush() == ([], "")


def test_a_loss_without_steps_does_not_stand_in_the_line(meter):
    meter.clock[0] += 1.0
    add(meter, 1, "webvid", loss=3.0, contrastive=3.0)
    assert "sorting" not in meter.flush()[1]


def test_a_line_tells_sets_apart(meter):
    for step, name in enumerate(("yttemporal", "webvid", "webvid"), start=1):
        next(meter.timed([BATCH]))
        meter.last_wait = 0.5 * step
        meter.clock[0] += 2.0
        more = {"sorting": 2.0} if name == "yttemporal" else {}
        add(meter, step, name, loss=float(step), **more)
    found, line = meter.flush()
    assert [row["data_wait_s"] for row in found] == [0.5, 1.0, 1.5]
    assert line.startswith("(yttemporal)  loss 1.000  sorting 2.000  (webvid)  loss 2.500  lr")
    assert "data wait 50 % (yttemporal 8 %, webvid 42 %)" in line


@pytest.mark.heavy
def test_tensorboard_shows_each_step_once_after_an_interruption(arguments, tmp_path):
    settings = {"name": "board", "trainer__tensorboard": True, "trainer__save_every_steps": 2}
    assert train.main(arguments(**settings, trainer__epochs=1)) == 0
    (tmp_path / "board/checkpoint-epoch1.pth").unlink()  # as if killed before it was written
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    board = EventAccumulator(str(tmp_path / "board/tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("step/loss")] == list(range(1, 13))
    assert {"step/lr_new", "step/grad_norm", "validation/webvid_t2v_R1"} <= set(board.Tags()["scalars"])
    assert {"validation/webvid_best", "validation/yttemporal_worst"} <= set(board.Tags()["images"])
    assert [event.step for event in board.Images("validation/webvid_best")] == [6, 12]
    assert [event.step for event in board.Scalars("step/webvid/loss")] == list(range(2, 13, 2))


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


@pytest.mark.heavy
def test_wandb_gets_the_same_run_again_after_an_interruption(arguments, tmp_path, monkeypatch):
    run = FakeRun()
    wandb = types.ModuleType("wandb")
    wandb.init = run.init
    wandb.Image = lambda pixels, caption: caption
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
    assert (
        "rank 1 of "
        in next(row for row in run.rows if "validation/webvid_best" in row)["validation/webvid_best"]
    )
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


def checkpoint(folder, name: str):
    path = folder / name
    path.write_bytes(name.encode())
    return path


def test_the_best_so_far_is_kept_across_runs(tmp_path):
    for epoch, value in enumerate([10.0, 30.0, 20.0, 30.0, 40.0], start=1):
        monitor = Monitor("max r1", tmp_path, ["r1"])  # anew, as after resuming
        monitor.keep_if_best({"r1": value}, checkpoint(tmp_path, f"epoch{epoch}"))
        expected = {1: 1, 2: 2, 3: 2, 4: 4, 5: 5}[epoch]  # of equals the later
        assert (tmp_path / BEST_NAME).read_bytes() == f"epoch{expected}".encode()
    note = json.loads((tmp_path / "model_best.json").read_text())
    assert note == {"monitor": "max r1", "value": 40.0, "checkpoint": "epoch5"}


def test_the_lowest_where_less_is_better(tmp_path):
    monitor = Monitor("min rank", tmp_path, ["rank"])
    for name, value in (("a", 3.0), ("b", 2.0), ("c", 5.0)):
        monitor.keep_if_best({"rank": value}, checkpoint(tmp_path, name))
    assert (tmp_path / BEST_NAME).read_bytes() == b"b"


def test_another_metric_starts_anew(tmp_path):
    Monitor("max r1", tmp_path, ["r1"]).keep_if_best({"r1": 90.0}, checkpoint(tmp_path, "a"))
    Monitor("max order", tmp_path, ["order"]).keep_if_best({"order": 5.0}, checkpoint(tmp_path, "b"))
    assert (tmp_path / BEST_NAME).read_bytes() == b"b"


def test_a_metric_that_is_not_there_is_named_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.monitor is 'max r1', but validation has no metric 'r1'"):
        Monitor("max r1", tmp_path, ["order"])


def test_the_best_costs_no_second_copy(tmp_path):
    path = checkpoint(tmp_path, "a")
    mark_best(path)
    mark_best(path)  # again, after being killed in between
    assert os.path.samefile(path, tmp_path / BEST_NAME)
    path.unlink()  # when newer ones have come
    assert (tmp_path / BEST_NAME).read_bytes() == b"a"
    assert [p.name for p in tmp_path.iterdir()] == [BEST_NAME]


def test_without_hard_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    mark_best(checkpoint(tmp_path, "a"))
    assert (tmp_path / BEST_NAME).read_bytes() == b"a"
