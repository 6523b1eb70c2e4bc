"""Whole runs of train.py on generated videos: what they write, resuming, stopping, failing."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import train
from tests.trainer.runs import losses, rows
from trainer.checkpoints import list_checkpoints
from trainer.trainer import Trainer


@pytest.fixture
def undisturbed(arguments, tmp_path) -> Path:
    """Two whole epochs: 3 joint steps each, so 12 optimiser steps."""
    assert train.main(arguments(name="undisturbed")) == 0
    return tmp_path / "undisturbed"


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
    assert json.loads((undisturbed / "environment.json").read_text())["packages"]["torch"]
    state = torch.load(undisturbed / "checkpoint-epoch2.pth", weights_only=True)
    assert (state["arch"], state["epoch"], state["global_step"]) == ("TVTSv2_Demo", 2, 12)
    assert "the same" not in (undisturbed / "log.txt").read_text()


def test_same_seed_same_losses_and_resuming_changes_nothing(undisturbed, arguments, tmp_path):
    """Stopped in mid-epoch, the run goes on to the losses of the undisturbed one, bit for bit."""
    stopped = tmp_path / "stopped"
    settings = {"name": "stopped", "trainer__save_every_steps": 2, "trainer__keep_last": 10}
    reference = arguments(**{**settings, "name": "reference"})
    assert train.main(reference) == 0
    assert train.main(arguments(**settings)) == 0
    assert losses(stopped) == losses(tmp_path / "reference")
    newest = list_checkpoints(stopped)
    for path in newest[: len(newest) - 1]:  # as if killed just after the oldest one kept was written
        path.unlink()
    assert newest[-1].name == "checkpoint-epoch0-step1.pth"
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    assert losses(stopped) == losses(tmp_path / "reference")


def test_a_new_run_does_not_overwrite_an_old_one(undisturbed, arguments, capsys):
    with pytest.raises(SystemExit):
        train.main(arguments(name="undisturbed"))
    assert "--resume auto" in capsys.readouterr().err


def test_a_finished_run_resumed_stays_as_it_is(undisturbed, arguments):
    before = losses(undisturbed)
    assert train.main(arguments("--resume", "auto", name="undisturbed")) == 0
    assert losses(undisturbed) == before


def test_resuming_where_nothing_is_starts_anew(arguments, tmp_path):
    assert train.main(arguments("--resume", "auto", name="fresh", trainer__max_steps=2)) == 0
    assert len(rows(tmp_path / "fresh", "step")) == 2


def test_a_nan_stops_the_run_and_leaves_the_checkpoint(undisturbed, arguments, monkeypatch, capsys):
    whole = (undisturbed / "checkpoint-epoch2.pth").read_bytes()
    plain = Trainer._losses
    monkeypatch.setattr(
        Trainer, "_losses", lambda self, out: {k: v * float("nan") for k, v in plain(self, out).items()}
    )
    with pytest.raises(SystemExit) as ended:
        train.main(arguments("--resume", "auto", name="undisturbed", trainer__epochs=3))
    assert ended.value.code == 1
    assert "error: loss nan" in (said := capsys.readouterr().err)
    assert "Traceback" not in said
    assert (undisturbed / "checkpoint-epoch2.pth").read_bytes() == whole


def test_too_many_unreadable_videos_stop_the_run(world, arguments, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(world / "WebVid", broken)
    for path in sorted((broken / "train").rglob("*.mp4"))[::5]:
        path.write_bytes(b"not a video")
    entries = [{"type": "webvid", "root": str(broken)}]
    settings = {"data__train": entries, "data__val": [], "trainer__epochs": 2}
    with pytest.raises(SystemExit):
        train.main(arguments(name="spoilt", **settings))
    assert "could not be read" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(tmp_path / "spoilt")] == ["checkpoint-epoch1.pth"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer__precision", "fp8", "bf16, fp16 or fp32"),
        ("trainer__precision", "fp16", "needs a GPU"),
        ("arch__start_from", "/nowhere.pth", "nowhere"),
        ("loss__gather", "some", "gather"),
        ("trainer__monitor", "val_loss", "monitor"),
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
