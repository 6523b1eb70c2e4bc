"""A profile of a few steps, and what hung processes leave behind."""

import gzip
import json
import os
import signal

import pytest

import train
from tests.trainer.runs import losses, rows, wait_until
from trainer.profiling import SKIPPED, leave_traces

SETTINGS = {"trainer__epochs": 2, "data__val": []}


@pytest.mark.heavy
def test_a_profile_has_the_steps_asked_for_and_changes_no_loss(arguments, tmp_path, undisturbed):
    assert train.main(arguments("--profile", "3", name="profiled", **SETTINGS)) == 0
    run_dir = tmp_path / "profiled"
    assert losses(run_dir) == losses(undisturbed)
    with gzip.open(run_dir / "profile/trace.json.gz") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    steps = {name for name in names if name.startswith("ProfilerStep#")}
    assert steps == {f"ProfilerStep#{SKIPPED + i}" for i in range(3)}
    assert sum(name.startswith("Optimizer.step") for name in names) == 3
    assert "aten::" in (run_dir / "profile/operations.txt").read_text()
    assert f"profiled 3 steps: {run_dir / 'profile'}" in (run_dir / "log.txt").read_text()


def test_a_run_too_short_to_be_profiled_says_so(arguments, tmp_path):
    assert train.main(arguments("--profile", name="short", trainer__max_steps=2, **SETTINGS)) == 0
    assert (
        "--profile: the run had 2 steps; 8 are left out and 4 were to be profiled"
        in (tmp_path / "short/log.txt").read_text()
    )
    assert not (tmp_path / "short/profile").exists()


def test_a_profile_that_cannot_be_written_is_named(arguments, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/profile").touch()
    with pytest.raises(SystemExit) as ended:
        train.main(arguments("--profile", "1", name="full", **SETTINGS))
    assert ended.value.code == 1
    assert f"error: could not write {tmp_path / 'full/profile'}" in capsys.readouterr().err


def test_a_hung_process_says_where_it_is(start, arguments, tmp_path):
    process = start(arguments(name="hung", **{**SETTINGS, "trainer__epochs": 1000}), tmp_path / "says")
    wait_until(lambda: rows(tmp_path / "hung", "step"))
    os.kill(process.pid, signal.SIGUSR1)
    wait_until(lambda: 'trainer/trainer.py", line' in (tmp_path / "says").read_text())
    assert process.is_alive()


def test_the_flight_recorder_writes_into_the_runs_folder(tmp_path, monkeypatch):
    for name in ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")  # as someone wants it
    leave_traces(tmp_path)
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == f"{tmp_path}/collectives-"
    assert int(os.environ["TORCH_FR_BUFFER_SIZE"]) > 0
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "0"
