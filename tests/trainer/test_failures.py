"""What may stop a run: no room, no permission, losses that are no numbers, dying ranks."""

import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import train
from model import create_model
from tests.trainer.runs import DEVICES, LIMIT, rows, wait_until
from tests.trainer.test_signals import children
from trainer import step
from trainer import trainer as trainer_module
from trainer.checkpoint import list_checkpoints, read_checkpoint
from trainer.engine import Precision
from utils.config import REPOSITORY

pytestmark = pytest.mark.heavy  # each starts processes that train

ENDLESS = {"name": "two", "trainer__epochs": 1000, "trainer__log_every_s": 0, "data__val": []}


@contextmanager
def small_files(limit: int):
    """No file of this process may grow beyond `limit` bytes: what a full disk looks like to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file", ["checkpoint-epoch3.pth", "metrics.jsonl"])
def test_a_full_disk_stops_the_run_and_leaves_the_checkpoints(undisturbed, arguments, capsys, file):
    whole = (undisturbed / "checkpoint-epoch2.pth").read_bytes()
    limit = 10**6
    if file == "metrics.jsonl":  # long enough to be the first file that does not fit
        metrics = undisturbed / file
        metrics.write_text(metrics.read_text() * 40)
        limit = metrics.stat().st_size + 300
    with pytest.raises(SystemExit) as ended, small_files(limit):
        train.main(arguments("--resume", "auto", name="undisturbed", trainer__epochs=3))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"error: could not write {undisturbed / file}" in said
    assert "File too large" in said
    assert "Traceback" not in said
    assert (undisturbed / "checkpoint-epoch2.pth").read_bytes() == whole
    assert not list(undisturbed.glob(".*.unfinished"))
    assert train.main(arguments("--resume", "auto", name="undisturbed", trainer__epochs=3)) == 0


def test_a_folder_that_cannot_be_written_is_named_before_training(arguments, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        train.main(arguments(name="x", trainer__save_dir=str(tmp_path / "file")))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"cannot write to the run's folder {tmp_path / 'file' / 'x'}" in said
    assert "trainer.save_dir" in said


def test_a_folder_that_goes_away_is_named(undisturbed, start, arguments, tmp_path):
    going_on = {**ENDLESS, "name": "undisturbed"}
    process = start(arguments("--resume", "auto", **going_on), tmp_path / "says")
    wait_until(lambda: len(rows(undisturbed, "step")) > 12)
    undisturbed.rename(tmp_path / "elsewhere")  # as if unmounted
    process.join(LIMIT)
    assert process.exitcode == 1
    said = (tmp_path / "says").read_text()
    assert f"error: could not write {undisturbed}" in said and "Traceback" not in said
    newest = list_checkpoints(tmp_path / "elsewhere")[0]
    assert read_checkpoint(newest)["epoch"] >= 2


def test_an_old_checkpoint_that_cannot_be_deleted_stops_nothing(arguments, tmp_path, monkeypatch):
    plain = Path.unlink

    def refuse(path, **options):
        if path.name == "checkpoint-epoch1.pth":  # as if made immutable
            raise PermissionError(1, "Operation not permitted", str(path))
        plain(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert train.main(arguments(name="kept", trainer__keep_last=1, data__val=[])) == 0
    old = tmp_path / "kept/checkpoint-epoch1.pth"
    said = (tmp_path / "kept/log.txt").read_text()
    assert f"cannot delete the old checkpoint {old}" in said and "by hand" in said
    assert old.is_file() and read_checkpoint(tmp_path / "kept/checkpoint-epoch2.pth")["epoch"] == 2


def test_a_nan_stops_the_run_and_leaves_the_checkpoint(undisturbed, arguments, monkeypatch, capsys):
    whole = (undisturbed / "checkpoint-epoch2.pth").read_bytes()
    plain = step.contrastive_loss
    monkeypatch.setattr(step, "contrastive_loss", lambda *args: plain(*args) * float("nan"))
    with pytest.raises(SystemExit) as ended:
        train.main(arguments("--resume", "auto", name="undisturbed", trainer__epochs=3))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "error: loss nan" in said
    assert "Traceback" not in said
    assert (undisturbed / "checkpoint-epoch2.pth").read_bytes() == whole
    assert len(list_checkpoints(undisturbed)) == 2


def scaled_from(monkeypatch, scale: float) -> None:
    """Lets the loss be scaled as in fp16, which the CPU cannot train in."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=2.0**-20)
    monkeypatch.setattr(Precision, "scaler", lambda _: scaler)


def test_steps_that_a_loss_scaler_skips_stop_nothing(arguments, tmp_path, monkeypatch):
    scaled_from(monkeypatch, 2.0**127)  # the first step overflows
    settings = {"trainer__epochs": 1, "trainer__log_every_s": 0, "data__val": []}  # a line for each step
    assert train.main(arguments(name="scaled", **settings)) == 0
    finite = [math.isfinite(row["grad_norm"]) for row in rows(tmp_path / "scaled", "step")]
    assert not finite[0] and finite[-1]


def test_losses_that_no_scale_helps_stop_the_run(arguments, monkeypatch, capsys):
    scaled_from(monkeypatch, 4.0)
    monkeypatch.setattr(step, "contrastive_loss", lambda video, *_: video.sum() * float("nan"))
    with pytest.raises(SystemExit):
        train.main(arguments(name="scaled", trainer__log_every_s=0, data__val=[]))
    assert "error: loss nan" in capsys.readouterr().err


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


def test_an_error_in_validation_does_not_cost_the_epoch(arguments, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trainer_module, "validate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        train.main(arguments(name="epoch"))
    assert [path.name for path in list_checkpoints(tmp_path / "epoch")] == ["checkpoint-epoch1.pth"]
    monkeypatch.undo()
    assert train.main(arguments("--resume", "auto", name="epoch")) == 0
    assert [row["epoch"] for row in rows(tmp_path / "epoch", "validation")] == [1, 2]


@pytest.fixture
def torchrun(arguments, tmp_path):
    """Starts an endless run of two processes by torchrun; what they say goes to tmp_path/says."""
    started = []

    def start(script: str, device: str) -> subprocess.Popen:
        settings = {**ENDLESS, "trainer__device": device}
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, *launch, *arguments(**settings)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stderr=(tmp_path / "says").open("w"),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("device", DEVICES)
def test_an_error_of_one_rank_ends_all_and_stands_first(torchrun, tmp_path, device):
    process = torchrun("tests/trainer/failing_rank.py", device)
    wait_until(lambda: rows(tmp_path / "two", "step"))
    assert process.wait(LIMIT) == 1
    said = (tmp_path / "says").read_text()
    errors = [line for line in said.splitlines() if "Error:" in line]
    assert "ArithmeticError: the fifth step was too much" in errors[0], said
    summary = said[said.index("Root Cause") :]
    assert "rank      : 1" in summary
    assert "ArithmeticError: the fifth step was too much" in summary


@pytest.mark.parametrize("device", DEVICES)
def test_a_hung_rank_ends_the_others_when_their_time_is_over(start, arguments, tmp_path, device):
    settings = {**ENDLESS, "trainer__timeout_s": 15, "trainer__device": device}
    running, hung = start.ranks(2, arguments(**settings), tmp_path / "says")
    wait_until(lambda: rows(tmp_path / "two", "step"))
    os.kill(hung.pid, signal.SIGSTOP)
    running.join(LIMIT)  # NCCL's watchdog takes its time beyond the limit
    said = (tmp_path / "says0").read_text()
    if device == "cpu":
        assert running.exitcode == 1
        assert "hung for trainer.timeout_s" in said
    else:  # the watchdog ends the process, with a message of its own
        assert running.exitcode not in (0, None), said
        assert "collective operation timeout" in said
        # NCCL's flight recorder has written what the rank was waiting for
        assert (tmp_path / "two" / "collectives-0").stat().st_size > 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_killed_rank_ends_all(torchrun, tmp_path, device):
    process = torchrun("train.py", device)
    wait_until(lambda: rows(tmp_path / "two", "step"))
    os.kill(children(process.pid)[1], signal.SIGKILL)
    assert process.wait(LIMIT) == 1
    said = (tmp_path / "says").read_text()
    summary = said[said.index("Root Cause") :]
    assert "rank      : 1" in summary
    assert "SIGKILL" in summary


def test_validation_names_the_first_sample_without_a_number(arguments, tmp_path, capsys):
    """The weights are numbers; what is computed from them is not."""
    model = create_model("TVTSv2_Demo")
    torch.nn.init.constant_(model.text_projection, 3e38)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "large.pth")
    settings = {"arch__start_from": str(tmp_path / "large.pth"), "trainer__validate_at_start": True}
    with pytest.raises(SystemExit) as ended:
        train.main(arguments(name="large", **settings))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "error: the text embedding of " in said and "holds NaN or infinity" in said


def test_validation_warns_of_embeddings_that_are_all_the_same(arguments, tmp_path):
    model = create_model("TVTSv2_Demo")
    torch.nn.init.zeros_(model.video_model.proj)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "zero.pth")
    settings = {"arch__start_from": str(tmp_path / "zero.pth"), "trainer__validate_at_start": True}
    assert train.main(arguments(name="zero", trainer__max_steps=1, **settings)) == 0
    said = (tmp_path / "zero/log.txt").read_text()
    assert "validation, webvid: all video embeddings are alike" in said
