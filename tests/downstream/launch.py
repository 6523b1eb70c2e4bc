"""The repository's commands as processes of their own, on one or two."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.config import REPOSITORY


def launch(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
    """A command of Python, until it ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def torchrun(script: str, given: Sequence[str], cwd: Path, status: int = 0) -> subprocess.CompletedProcess:
    """The same, on two processes, which end with this status."""
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = launch([*started, str(REPOSITORY / script), *given], cwd)
    assert done.returncode == status, done.stderr
    return done
