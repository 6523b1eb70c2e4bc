"""Being told to stop: real processes, groups and workers; nothing is lost and nothing lives on."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from tests.trainer import slow_writer
from tests.trainer.runs import DEVICES, LIMIT, losses, rows, wait_until
from trainer import trainer as trainer_module
from trainer.checkpoint import list_checkpoints, read_checkpoint
from utils.config import REPOSITORY

pytestmark = pytest.mark.heavy  # each starts processes that train

ENDLESS = {
    "trainer__epochs": 1000,
    "trainer__log_every_s": 0,
    "lr_scheduler__type": "milestones",
    "data__val": [],
}


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    direct = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return direct + [grandchild for child in direct for grandchild in children(child)]


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 0)]
)
def test_a_signal_to_the_whole_group_spares_workers_and_decoders_until_all_is_saved(
    start, arguments, tmp_path, number, workers
):
    settings = {**ENDLESS, "data__num_workers": workers, "data__read_timeout": 100, "data__cache_mb": 0}
    process = start(arguments(name="told", **settings), tmp_path / "says")
    told = tmp_path / "told"
    wait_until(lambda: len(rows(told, "step")) >= 4)
    family = children(process.pid)
    assert len(family) >= (4 if workers else 1)  # two loaders' workers, each with its decoding process
    os.killpg(process.pid, number)
    process.join(LIMIT)
    said = (tmp_path / "says").read_text()
    assert process.exitcode == 3, said
    assert "--resume auto" in said
    assert "unreadable" not in said
    done = read_checkpoint(list_checkpoints(told)[0])["global_step"]
    assert [row["step"] for row in rows(told, "step")] == list(range(1, done + 1))
    wait_until(lambda: not any(map(runs, family)))

    settings = {**ENDLESS, "trainer__max_steps": done + 2}
    assert train.main(arguments("--resume", "auto", name="told", **settings)) == 0
    assert train.main(arguments(name="undisturbed", **settings)) == 0
    assert losses(told) == losses(tmp_path / "undisturbed")


def test_workers_of_a_killed_run_end(start, arguments, tmp_path):
    process = start(arguments(name="killed", **ENDLESS, data__num_workers=1), tmp_path / "says")
    wait_until(lambda: rows(tmp_path / "killed", "step"))
    family = children(process.pid)
    assert len(family) == 2
    process.kill()
    process.join()
    wait_until(lambda: not any(map(runs, family)))


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(
    start, arguments, tmp_path, device, engine
):
    settings = {**ENDLESS, "trainer__device": device, "trainer__engine": engine}
    processes = start.ranks(2, arguments(name="two", **settings), tmp_path / "says")
    wait_until(lambda: len(rows(tmp_path / "two", "step")) >= 4)
    os.kill(processes[1].pid, signal.SIGTERM)
    for process in processes:
        process.join(LIMIT)
    said = (tmp_path / "says0").read_text() + (tmp_path / "says1").read_text()
    assert [process.exitcode for process in processes] == [3, 3], said
    newest = list_checkpoints(tmp_path / "two")[0]
    assert len(rows(tmp_path / "two", "step")) == read_checkpoint(newest)["global_step"]


@pytest.mark.parametrize("writable", [True, False])
def test_no_rank_ends_before_rank_0_has_written_the_last_checkpoint(start, arguments, tmp_path, writable):
    """Slurm would kill rank 0 a minute later, or take the run for saved."""
    processes = start.ranks(2, arguments(name="two", **ENDLESS), tmp_path / "says", slow_writer.main)
    two = tmp_path / "two"
    wait_until(lambda: len(rows(two, "step")) >= 4)
    if not writable:
        resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, (10**5, 10**5))
    os.kill(processes[0].pid, signal.SIGTERM)
    processes[1].join(LIMIT)
    there = list_checkpoints(two)
    processes[0].join(LIMIT)
    said = (tmp_path / "says0").read_text() + (tmp_path / "says1").read_text()
    assert [process.exitcode for process in processes] == ([3, 3] if writable else [1, 1]), said
    assert bool(there) == writable
    assert ("could not write" in said) != writable


def test_a_run_told_to_stop_while_it_validates_validates_when_it_goes_on(arguments, tmp_path, monkeypatch):
    plain = trainer_module.validate

    def told(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*args)

    monkeypatch.setattr(trainer_module, "validate", told)
    assert train.main(arguments(name="told")) == 3
    monkeypatch.undo()
    assert [path.name for path in list_checkpoints(tmp_path / "told")] == ["checkpoint-epoch1.pth"]
    assert not rows(tmp_path / "told", "validation")
    assert train.main(arguments("--resume", "auto", name="told")) == 0
    assert [row["epoch"] for row in rows(tmp_path / "told", "validation")] == [1, 2]


def test_two_trainings_of_one_name_cannot_run_at_once(start, arguments, tmp_path):
    first = start(arguments(name="one", **ENDLESS), tmp_path / "first")
    wait_until(lambda: len(rows(tmp_path / "one", "step")) >= 1)
    unfinished = tmp_path / "one/.checkpoint-epoch9.pth.1.unfinished"  # as if the first were writing it
    unfinished.touch()
    second = start(arguments("--resume", "auto", name="one", **ENDLESS), tmp_path / "second")
    second.join(LIMIT)
    said = (tmp_path / "second").read_text()
    assert second.exitcode == 1
    assert f"another run is writing checkpoints to {tmp_path / 'one'} (process {first.pid})" in said
    assert unfinished.exists() and first.is_alive()
    os.killpg(first.pid, signal.SIGKILL)  # a dead process does not keep the lock
    first.join()
    third = start(arguments("--resume", "auto", name="one", **ENDLESS), tmp_path / "third")
    before = len(rows(tmp_path / "one", "step"))
    wait_until(lambda: not unfinished.exists() and len(rows(tmp_path / "one", "step")) > before)
    os.kill(third.pid, signal.SIGTERM)
    third.join(LIMIT)
    assert third.exitcode == 3, (tmp_path / "third").read_text()


def test_ranks_whose_torchrun_was_killed_save_and_end(arguments, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with (tmp_path / "says").open("w") as says:
        torchrun = subprocess.Popen(
            [*command, "train.py", *arguments(name="left", **ENDLESS)],
            cwd=REPOSITORY,
            stdout=says,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    left = tmp_path / "left"
    try:
        wait_until(lambda: len(rows(left, "step")) >= 2)
        ranks = children(torchrun.pid)
        torchrun.kill()
        torchrun.wait()
        wait_until(lambda: not any(map(runs, ranks)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(torchrun.pid, signal.SIGKILL)
    said = (tmp_path / "says").read_text()
    assert "stopped since torchrun has ended at step" in said
    done = read_checkpoint(list_checkpoints(left)[0])["global_step"]
    assert [row["step"] for row in rows(left, "step")] == list(range(1, done + 1))
