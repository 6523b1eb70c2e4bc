"""The Slurm script, with commands in Slurm's place that start as many processes as Slurm would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.checkpoint import read_checkpoint
from utils.config import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "slurm_train.sh"

SRUN = """#!/bin/sh
while case "$1" in --*) true ;; *) false ;; esac; do shift; done
pids=
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids="$pids $!"; done
status=0
for pid in $pids; do wait "$pid" || status=$?; done
exit $status
"""
SCONTROL = '#!/bin/sh\ncase "$1" in show) echo localhost ;; *) echo "$@" >> "$REQUEUED" ;; esac\n'


@pytest.fixture
def run(tmp_path):
    """Runs the script as Slurm would its copy of it: a job of two processes on one node."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    copy = tmp_path / "slurm_script"
    copy.write_bytes(SCRIPT.read_bytes())

    def run(*arguments: str, submitted: Path = REPOSITORY, **more: str) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "REQUEUED": str(tmp_path / "requeued"),
            "PYTHON": sys.executable,
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_SUBMIT_DIR": str(submitted),
            **more,
        }
        return subprocess.run(
            ["bash", str(copy), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.mark.heavy
def test_processes_of_a_job_train_together(run, arguments, tmp_path):
    done = run(*arguments(name="job", data__val=[], trainer__max_steps=2), submitted=REPOSITORY / "scripts")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "job" / "metrics.jsonl").read_text().count("contrastive") == 2
    assert read_checkpoint(tmp_path / "job" / "checkpoint-epoch0-step1.pth")["world_size"] == 2
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("status", "ends_with", "queued"), [(3, 0, True), (2, 2, False)])
def test_a_run_that_was_stopped_and_saved_is_queued_again(run, tmp_path, status, ends_with, queued):
    ended = tmp_path / "python"  # train.py ends with 3 when it was told to stop, 2 after a mistake
    ended.write_text(f"#!/bin/sh\necho $SRUN_CPUS_PER_TASK $MASTER_PORT\nexit {status}\n")
    ended.chmod(0o755)
    done = run(
        "--config", "configs/demo.json", PYTHON=str(ended), SLURM_CPUS_PER_TASK="12", SLURM_JOB_ID="19999"
    )
    assert done.returncode == ends_with
    assert done.stdout == 2 * "12 27999\n"  # cores: a process has its loaders beside it
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == "requeue 19999\n" * queued


def test_a_job_from_elsewhere_says_so(run, tmp_path):
    done = run(submitted=tmp_path)
    assert done.returncode == 2
    assert "no train.py" in done.stderr


def test_outside_of_a_job_it_says_how_to_submit_one(run):
    done = run(SLURM_JOB_NODELIST="")
    assert done.returncode == 2
    assert "not a Slurm job: submit it with sbatch" in done.stderr
