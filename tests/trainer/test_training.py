"""Whole runs of train.py on generated videos: what they write, resuming, stopping, failing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from data_loader.failures import TooManyUnreadable
from trainer.checkpoints import list_checkpoints
from trainer.config import REPOSITORY
from trainer.trainer import Trainer


def rows(run_dir: Path, kind: str) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def losses(run_dir: Path) -> list[tuple]:
    return [
        (r["step"], r["set"], r["loss"], r["contrastive"], r.get("sorting")) for r in rows(run_dir, "step")
    ]


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


def test_a_nan_stops_the_run_and_leaves_the_checkpoint(undisturbed, arguments, monkeypatch):
    whole = (undisturbed / "checkpoint-epoch2.pth").read_bytes()
    plain = Trainer._losses
    monkeypatch.setattr(
        Trainer, "_losses", lambda self, out: {k: v * float("nan") for k, v in plain(self, out).items()}
    )
    with pytest.raises(FloatingPointError, match="the last checkpoint"):
        train.main(arguments("--resume", "auto", name="undisturbed", trainer__epochs=3))
    assert (undisturbed / "checkpoint-epoch2.pth").read_bytes() == whole


def test_too_many_unreadable_videos_stop_the_run(world, arguments, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(world / "WebVid", broken)
    for path in sorted((broken / "train").rglob("*.mp4"))[::5]:
        path.write_bytes(b"not a video")
    entries = [{"type": "webvid", "root": str(broken)}]
    settings = {"data__train": entries, "data__val": [], "trainer__epochs": 2}
    with pytest.raises(TooManyUnreadable, match="could not be read"):
        train.main(arguments(name="spoilt", **settings))
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


def start(arguments: list[str], processes: int = 1) -> subprocess.Popen:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launch, "train.py", *arguments], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
    )


def test_sigterm_saves_and_the_run_goes_on_from_there(arguments, tmp_path):
    settings = {"name": "told", "trainer__epochs": 1000, "trainer__log_every_s": 0, "data__val": []}
    process = start(arguments(**settings))
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "step 4/" in line:
            process.send_signal(signal.SIGTERM)
            break
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 3, "".join(seen) + rest
    assert "--resume auto" in rest
    (saved,) = list_checkpoints(tmp_path / "told")
    done = torch.load(saved, weights_only=True)["global_step"]
    assert done >= 4
    assert train.main(arguments("--resume", "auto", **settings, trainer__max_steps=done + 2)) == 0
    assert [row["step"] for row in rows(tmp_path / "told", "step")] == list(range(1, done + 3))


def test_two_processes_train_validate_and_resume(arguments, tmp_path):
    settings = {"name": "two", "trainer__epochs": 1, "loss__gather": "exact"}
    process = start(arguments(**settings), processes=2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    run_dir = tmp_path / "two"
    assert [row["step"] for row in rows(run_dir, "step")] == [
        1,
        2,
        3,
        4,
    ]  # 6 a rank in batches of 4: 2 joint steps
    assert len(rows(run_dir, "validation")) == 1
    state = torch.load(run_dir / "checkpoint-epoch1.pth", weights_only=True)
    assert state["world_size"] == 2
    resumed = train.main(
        arguments("--resume", "auto", **{**settings, "trainer__epochs": 2})
    )  # on one process
    assert resumed == 0
    steps = rows(run_dir, "step")
    assert steps[-1]["step"] == 10  # 4 as before, then a whole epoch of 3 joint steps
    assert steps[-1]["lr"] == pytest.approx(1.2e-3 * 12 / 100)  # where two epochs of one process warm up to
