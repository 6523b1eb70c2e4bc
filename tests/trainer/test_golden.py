"""Twenty steps through data sets, loaders, masks, model, losses and optimiser give the losses on file."""

import json

import pytest

from tests.trainer.golden import LOSSES, twenty_losses


def test_twenty_losses_are_the_golden_ones(tmp_path):
    golden = json.loads(LOSSES.read_text())
    losses = twenty_losses(tmp_path / "world")
    assert len(losses) == len(golden) == 20
    for step, (now, before) in enumerate(zip(losses, golden, strict=True), start=1):
        assert now == pytest.approx(before, rel=1e-5), (
            f"step {step}: is the change meant? Then: python -m tests.trainer.golden"
        )
