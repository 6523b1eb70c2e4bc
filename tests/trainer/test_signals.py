"""Being told to stop: real processes, groups and workers; nothing is lost and nothing lives on."""

import os
import signal
from pathlib import Path

import pytest

import train
from tests.trainer.runs import DEVICES, losses, rows, wait_until
from trainer import trainer as trainer_module
from trainer.checkpoints import list_checkpoints, read_checkpoint

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
    process.join(60)
    said = (tmp_path / "says").read_text()
    assert process.exitcode == 3, said
    assert "--resume auto" in said
    assert "unreadable" not in said
    done = read_checkpoint(list_checkpoints(told)[0])["global_step"]
    assert [row["step"] for row in rows(told, "step")] == list(range(1, done + 1))
    wait_until(lambda: not any(map(runs, family)), limit=20)

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
    wait_until(lambda: not any(map(runs, family)), limit=20)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(
    start, arguments, tmp_path, device, engine
):
    settings = {**ENDLESS, "trainer__device": device, "trainer__engine": engine}
    processes = start.ranks(2, arguments(name="two", **settings), tmp_path / "says")
    wait_until(lambda: len(rows(tmp_path / "two", "step")) >= 4, limit=100)
    os.kill(processes[1].pid, signal.SIGTERM)
    for process in processes:
        process.join(60)
    said = (tmp_path / "says0").read_text() + (tmp_path / "says1").read_text()
    assert [process.exitcode for process in processes] == [3, 3], said
    newest = list_checkpoints(tmp_path / "two")[0]
    assert len(rows(tmp_path / "two", "step")) == read_checkpoint(newest)["global_step"]


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
