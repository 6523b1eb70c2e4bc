"""What a run writes down for people and programs: log lines, metrics.jsonl, boards, its own settings."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.boards import Boards
from utils.config import as_dict
from utils.environment import environment
from utils.files import RunWriteError, write_text
from utils.schema import PretrainingConfig


def setup_logging(run_dir: Path | None, is_main: bool) -> None:
    """Rank 0 logs to the terminal and to run_dir/log.txt; the others only say warnings and errors."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if is_main and run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(LogFile(run_dir / "log.txt"))
    level = logging.INFO if is_main else logging.WARNING
    logging.basicConfig(
        level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )


class LogFile(logging.FileHandler):
    """A log file that says nothing itself about a full disk: the checkpoint or the metrics will."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class RunLog:
    """metrics.jsonl (one object a line: "kind" is "step" or "validation") and the boards that are wanted.

    What an interrupted run wrote after `global_step`, where this one goes on, is forgotten.
    """

    def __init__(self, run_dir: Path, config: PretrainingConfig, global_step: int):
        self.path = run_dir / "metrics.jsonl"
        self._drop_after(global_step)
        self.boards = Boards(run_dir, config, global_step)

    def _drop_after(self, global_step: int) -> None:
        if self.path.is_file():
            lines = [line for line in self.path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= global_step]
            write_text("".join(f"{line}\n" for line in kept), self.path, RunWriteError)

    def has(self, kind: str, step: int) -> bool:
        """Whether there is a row of that kind for that step."""
        if not self.path.is_file():
            return False
        rows = map(json.loads, self.path.read_text().splitlines())
        return any(row["kind"] == kind and row["step"] == step for row in rows)

    def write(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each with its "step". Raises RunWriteError where the disk is full."""
        try:
            with self.path.open("a") as file:
                file.write("".join(json.dumps({"kind": kind, **row}) + "\n" for row in rows))
        except OSError as error:
            raise RunWriteError.of(self.path, error) from error
        self.boards.write(kind, rows)

    def close(self) -> None:
        self.boards.close()


def write_settings(run_dir: Path, config: PretrainingConfig, global_step: int = 0) -> None:
    """Save the resolved config, and the command, commit, versions and machine that it runs with.

    config.json and environment.json are those of the latest start; starts.jsonl has a line for each.
    """
    write_text(json.dumps(as_dict(config), indent=2) + "\n", run_dir / "config.json", RunWriteError)
    found = environment()
    write_text(json.dumps(found, indent=2) + "\n", run_dir / "environment.json", RunWriteError)
    try:
        with (run_dir / "starts.jsonl").open("a") as file:
            file.write(json.dumps({"step": global_step, **found, "config": as_dict(config)}) + "\n")
    except OSError as error:
        raise RunWriteError.of(run_dir / "starts.jsonl", error) from error
