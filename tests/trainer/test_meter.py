"""The log line and the rows behind it: what stands there, and that the numbers are right."""

import time

import pytest
import torch

from model import create_model
from model.flops import train_flops_per_clip
from trainer import meter as meter_module
from trainer.meter import StepMeter
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
    monkeypatch.setattr(meter_module, "peak_tflops", lambda name: 0.01)  # as small a card as the model
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
    rows, line = meter.flush()
    assert [row["loss"] for row in rows] == [4.0, 5.0]
    assert rows[1]["clips_per_s"] == 2  # 2 steps of 4 clips on 2 ranks, 8 s
    assert rows[1]["data_wait"] == 0.25
    flops = train_flops_per_clip(meter.model.variant, num_frames=12, kept_patches=8, texts=4, text_len=77)
    assert rows[1]["mfu"] == pytest.approx(8 * flops / 8 / 1e10, abs=1e-4)
    for part in ("loss 4.500", "contrastive 2.000", "sorting 2.500", "lr 1.0e-04 / 1.0e-07", "grad 2.00"):
        assert part in line
    assert "2.0 clips/s  data wait 25 %" in line
    assert "MFU" in line
    assert meter.flush() == ([], "")


def test_a_loss_without_steps_does_not_stand_in_the_line(meter):
    meter.clock[0] += 1.0
    add(meter, 1, "webvid", loss=3.0, contrastive=3.0)
    assert "sorting" not in meter.flush()[1]
