"""Real training processes for the tests, and what a run has written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.config import REPOSITORY


def rows(run_dir: Path, kind: str) -> list[dict]:
    """The rows of metrics.jsonl of a kind."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def losses(run_dir: Path) -> list[tuple]:
    """Step, set and losses of every step of a run."""
    return [
        (r["step"], r["set"], r["loss"], r["contrastive"], r.get("sorting")) for r in rows(run_dir, "step")
    ]


@contextmanager
def training(
    arguments: list[str], processes: int = 1, script: str = "train.py"
) -> Iterator[subprocess.Popen]:
    """A running train.py, by torchrun where it has several processes, in a process group of its own."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    process = subprocess.Popen(
        [*launch, script, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_until(process: subprocess.Popen, word: str) -> str:
    """What the process says up to a line that holds `word`."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if word in line:
            return "".join(seen)
    raise AssertionError(f"no {word!r} in:\n{''.join(seen)}")
