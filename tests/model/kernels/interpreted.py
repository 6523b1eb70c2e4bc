"""Run checks of Triton kernels on the CPU, in a process of their own that uses Triton's interpreter."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path


class Interpreter:
    """One process for all checks: what it imports takes longer than most of them.

    It is there from the first check to the end of this one.
    """

    process: subprocess.Popen | None = None

    def run(self, module: str, function: str) -> str:
        """What a function of a test module prints. AssertionError with the traceback where it fails."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=Path(__file__).parents[3],
                env={**os.environ, "TRITON_INTERPRET": "1"},  # has to be there before Triton is imported
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.process.stdin.write(json.dumps([module, function]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the interpreter ended with {self.process.wait()}"
        printed, error = json.loads(answer)
        assert error is None, error
        return printed


run_interpreted = Interpreter().run


def relative_error(got, want) -> float:
    """‖got − want‖ / ‖want‖, in double precision."""
    return ((got.double() - want).norm() / want.norm()).item()


def serve() -> None:
    """Runs what is asked for in a line of stdin, until there is none; answers in a line of stdout."""
    answers = sys.stdout
    for line in sys.stdin:
        module, function = json.loads(line)
        printed, error = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            try:
                getattr(importlib.import_module(module), function)()
            except Exception:  # noqa: BLE001  it fails the test that asked
                error = traceback.format_exc()
        print(json.dumps([printed.getvalue(), error]), file=answers, flush=True)


if __name__ == "__main__":
    serve()
