"""The repository's commands as processes of their own, on one or two."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from utils.config import REPOSITORY


def launch(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
    """A command of Python, until it ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@contextmanager
def torchrun(
    script: str, given: Sequence[str], cwd: Path, status: int = 0
) -> Iterator[Callable[[], subprocess.CompletedProcess]]:
    """The same, on two processes, which start while the block runs. What it is given waits for their end.

    They end with this status.
    """
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def ended() -> subprocess.CompletedProcess:
        done = running.result()
        assert done.returncode == status, done.stderr
        return done

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(launch, [*started, str(REPOSITORY / script), *given], cwd)
        yield ended


def probe_arguments(tmp_path: Path, checkpoint: Path, *more: str, out: str = "out") -> list[str]:
    """Of a probe of layouts.probe_lists(tmp_path / "data", tmp_path / "meta")."""
    places = ["--set", f"data.root={tmp_path / 'data'}", "--set", f"meta={tmp_path / 'meta'}"]
    model = [
        "--arch",
        "TVTSv2_Demo",
        "--checkpoint",
        str(checkpoint),
        "--device",
        "cpu",
        "--num-workers",
        "0",
    ]
    return ["--dataset", "hmdb51", *places, *model, "--output", str(tmp_path / out), *more]
