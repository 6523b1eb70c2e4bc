"""Runs that torchrun starts anew: after a process has failed, and as machines come and go."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from tests.trainer.runs import LIMIT, free_port, losses, rows, wait_until
from tests.trainer.test_signals import children
from trainer.checkpoint import list_checkpoints
from utils.config import REPOSITORY

SETTINGS = {
    "trainer__epochs": 1000,
    "trainer__save_every_steps": 2,
    "trainer__log_every_s": 0,
    "lr_scheduler__type": "milestones",
    "data__val": [],
}


def starts(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "starts.jsonl").read_text().split("\n")[:-1]]


@pytest.mark.heavy
def test_restarted_by_the_same_torchrun_a_run_goes_on_by_itself(arguments, tmp_path, monkeypatch, capsys):
    again = {**SETTINGS, "name": "again"}
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # this process's parent stands for torchrun
    assert train.main(arguments(**again, trainer__max_steps=4)) == 0
    assert (
        train.main(arguments("--resume", str(tmp_path / "elsewhere.pth"), **again, trainer__max_steps=8)) == 0
    )
    assert [start["step"] for start in starts(tmp_path / "again")] == [0, 4]
    assert train.main(arguments(name="undisturbed", **SETTINGS, trainer__max_steps=8)) == 0
    assert losses(tmp_path / "again") == losses(tmp_path / "undisturbed")

    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # a person's new start is none
    with pytest.raises(SystemExit):
        train.main(arguments(**again, trainer__max_steps=12))
    assert "holds the checkpoints of an earlier run" in capsys.readouterr().err


@pytest.fixture
def launch(tmp_path):
    """Starts launch.sh as on another machine; what it says goes to tmp_path/NAME."""
    started = []

    def launch(
        name: str, arguments: list[str], script: str = "train.py", **environment: str
    ) -> subprocess.Popen:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC")}
        with (tmp_path / name).open("w") as says:
            process = subprocess.Popen(
                ["bash", str(REPOSITORY / "scripts/launch.sh"), script, *arguments],
                env={**kept, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
                stdout=says,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield launch
    for process in started:
        if process.poll() is None:
            end(process)


def end(torchrun: subprocess.Popen) -> None:
    """As if the machine had lost power."""
    for pid in [torchrun.pid, *children(torchrun.pid)]:
        os.kill(pid, signal.SIGKILL)
    torchrun.wait()


@pytest.mark.heavy
@pytest.mark.parametrize("machines", [1, 2])
def test_after_a_rank_was_killed_all_start_anew_and_go_on(machines, launch, start, arguments, tmp_path):
    run_dir, settings = tmp_path / "killed", {**SETTINGS, "trainer__max_steps": 16}
    given = {"GPUS": str(2 // machines), "NNODES": str(machines), "MAX_RESTARTS": "1"}
    if machines > 1:
        given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    torchruns = []
    for machine in range(machines):
        host = {"RDZV_CONF": f"is_host={machine == 0}"} if machines > 1 else {}  # all are this machine
        torchruns.append(launch(f"says{machine}", arguments(name="killed", **settings), **given, **host))
    wait_until(lambda: len(list_checkpoints(run_dir)) > 1)
    os.kill(children(torchruns[-1].pid)[2 // machines - 1], signal.SIGKILL)
    for machine, torchrun in enumerate(torchruns):
        assert torchrun.wait(LIMIT) == 0, (tmp_path / f"says{machine}").read_text()
    assert [each["processes"] for each in starts(run_dir)] == [2, 2]
    assert starts(run_dir)[1]["step"] > 0
    for process in start.ranks(2, arguments(name="undisturbed", **settings), tmp_path / "rank"):
        process.join(LIMIT)
    assert losses(run_dir) == losses(tmp_path / "undisturbed")


@pytest.mark.heavy
@pytest.mark.parametrize("port", ["", "of its own"])
def test_each_start_has_a_store_of_its_own(port, launch, tmp_path):
    """In that of the start before, a process would look for its peers where those listened that are gone."""
    script = tmp_path / "start.py"
    script.write_text(
        "import os, sys\n"
        "from torch import distributed\n"
        "store, *_ = next(distributed.rendezvous('env://'))\n"
        "print('left behind:', store.check(['address']), flush=True)\n"
        "store.set('address', 'here')\n"
        "sys.exit(os.environ['TORCHELASTIC_RESTART_COUNT'] == '0')\n"
    )
    given = {"GPUS": "1", "MAX_RESTARTS": "1", "MASTER_PORT": port and str(free_port())}
    torchrun = launch("says", [], script=os.path.relpath(script, REPOSITORY), **given)
    assert torchrun.wait(LIMIT) == 0
    assert re.findall("left behind: (.*)", (tmp_path / "says").read_text()) == ["False", "False"]


@pytest.mark.heavy
def test_a_machine_may_join_and_leave(launch, arguments, tmp_path):
    elastic = {
        "NNODES": "1:2",
        "GPUS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "MAX_RESTARTS": "3",
        "RDZV_CONF": "last_call_timeout=1,keep_alive_interval=1,is_host=true",
    }
    run_dir = tmp_path / "elastic"
    endless = arguments(name="elastic", **SETTINGS)
    first = launch("first", endless, **elastic)
    wait_until(lambda: list_checkpoints(run_dir))
    other = elastic["RDZV_CONF"].replace("true", "false")
    second = launch("second", endless, **{**elastic, "RDZV_CONF": other})

    def runs_on(processes: int, times: int) -> bool:
        """Whether the run's latest start, the one after `times` others, has trained."""
        found = starts(run_dir)
        here = len(found) > times and found[-1]["processes"] == processes
        return here and rows(run_dir, "step")[-1]["step"] > found[-1]["step"] + 4

    wait_until(lambda: runs_on(2, times=1))
    end(second)
    wait_until(lambda: runs_on(1, times=2))
    first.terminate()
    first.wait(LIMIT)
    steps = [row["step"] for row in rows(run_dir, "step")]
    assert steps == list(range(1, len(steps) + 1))
    assert {each["processes"] for each in starts(run_dir)} == {1, 2}
    assert all(each["step"] > 0 for each in starts(run_dir)[1:])
    said = (tmp_path / "first").read_text()
    assert "stopped by a signal at step" in said and "--resume auto" in said
