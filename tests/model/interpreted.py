"""Run checks of Triton kernels on the CPU, in a process of their own that uses Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path


def run_interpreted(module: str, function: str) -> str:
    """What `function` of a test module prints. The interpreter has to be chosen before Triton is imported."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {module} as tests; tests.{function}()"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def relative_error(got, want) -> float:
    """‖got − want‖ / ‖want‖, in double precision."""
    return ((got.double() - want).norm() / want.norm()).item()
