"""The table of fine-tuning: its settings are ones that train.py takes, its figures those of the runs."""

import json

import pytest

from benchmarks import finetuning
from utils.config import REPOSITORY, load_config
from utils.schema import PretrainingConfig


@pytest.mark.parametrize("task", finetuning.TASKS)
def test_each_run_is_its_config_made_small(task, tmp_path):
    name, kind, *_ = finetuning.TASKS[task]
    overrides = finetuning.overrides(
        task, tmp_path / "demo", tmp_path / "start.pth", tmp_path / "runs", seed=2
    )
    given, small = (
        load_config(PretrainingConfig, REPOSITORY / f"configs/{name}.json", sets) for sets in ((), overrides)
    )
    assert small.arch.class_head == given.arch.class_head and small.arch.mask_ratio == 0
    assert small.arch.start_from == str(tmp_path / "start.pth") and small.seed == 2
    assert small.data.train == small.data.val and small.data.train[0].root == str(tmp_path / "demo" / kind)
    assert small.optimizer.layer_decay == given.optimizer.layer_decay < 1
    assert 0 < small.trainer.ema_decay < given.trainer.ema_decay and small.data.held_out > 0


def test_a_figure_is_that_of_the_results(tmp_path):
    metrics = {
        "accuracy": {"plain": {"top1": 50.0}},
        "accuracy, head": {"plain": {"top1": 90.0}},
    }
    (tmp_path / "results.json").write_text(json.dumps({"metrics": metrics}))
    figures = [
        finetuning.measure("motion, top-1", tmp_path, tmp_path / "x.pth", tmp_path, tuned)
        for tuned in (False, True)
    ]
    assert figures == [50.0, 90.0]
