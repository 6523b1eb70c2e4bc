"""Whole runs of train.py on generated videos: what they write, resuming, stopping, failing."""

import json

import pytest
import torch

import train
from tests.trainer.runs import rows
from trainer.checkpoints import list_checkpoints


def test_a_run_writes_what_people_and_programs_need(undisturbed):
    steps = rows(undisturbed, "step")
    assert [row["set"] for row in steps[:4]] == ["yttemporal", "webvid"] * 2
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert all("sorting" in row for row in steps[::2])
    assert not any("sorting" in row for row in steps[1::2])
    assert steps[-1]["clips_per_s"] > 0
    last = rows(undisturbed, "validation")[-1]
    assert {"yttemporal_order_accuracy", "webvid_t2v_R1", "webvid_v2t_R1"} <= set(last)
    assert json.loads((undisturbed / "config.json").read_text())["name"] == "undisturbed"
    state = torch.load(undisturbed / "checkpoint-epoch2.pth", weights_only=True)
    assert (state["arch"], state["epoch"], state["global_step"]) == ("TVTSv2_Demo", 2, 12)
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])
    assert len(environment["commit"].split("-")[0]) == 40
    assert environment["processes"] == 1


def test_a_new_run_does_not_overwrite_an_old_one(undisturbed, arguments, capsys):
    with pytest.raises(SystemExit):
        train.main(arguments(name="undisturbed"))
    assert "--resume auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer__precision", "fp8", "bf16, fp16 or fp32"),
        ("trainer__precision", "fp16", "needs a GPU"),
        ("arch__start_from", "/nowhere.pth", "nowhere"),
        ("loss__gather", "some", "gather"),
        ("trainer__monitor", "val_loss", "monitor"),
        ("trainer__keep_last", 0, "trainer.keep_last is 0"),
        ("trainer__device", "tpu9", "none of cpu, cuda"),
        ("data__train", [], "data.train needs sets"),
        ("data__val", [{"root": "x"}], "data.val needs sets that each name a type"),
    ],
)
def test_values_that_cannot_be_used_are_named_before_training(
    arguments, tmp_path, capsys, key, value, message
):
    with pytest.raises(SystemExit):
        train.main(arguments(name="wrong", **{key: value}))
    assert message in capsys.readouterr().err
    assert not list_checkpoints(tmp_path / "wrong")
