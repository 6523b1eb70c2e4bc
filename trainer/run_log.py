"""What a run writes down for people and programs: log lines, metrics.jsonl, TensorBoard, its own settings."""

import importlib.metadata
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainer.config import REPOSITORY

PACKAGES = ("torch", "torchvision", "transformers", "open_clip_torch", "decord", "av", "numpy", "pandas")


def setup_logging(run_dir: Path | None, is_main: bool) -> None:
    """Rank 0 logs to the terminal and to run_dir/log.txt; the others only say warnings and errors."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if is_main and run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(run_dir / "log.txt"))
    level = logging.INFO if is_main else logging.WARNING
    logging.basicConfig(
        level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )


class RunLog:
    """metrics.jsonl (one object a line: "kind" is "step" or "validation") and, if wanted, TensorBoard."""

    def __init__(self, run_dir: Path, tensorboard: bool = True):
        self.path = run_dir / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only some runs need it

            self.board = SummaryWriter(str(run_dir / "tensorboard"))

    def drop_after(self, global_step: int) -> None:
        """Forget what an interrupted run wrote after the checkpoint that this one goes on from."""
        if not self.path.is_file():
            return
        lines = [line for line in self.path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= global_step]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def write_settings(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Save the resolved config, and the commit, versions and machine that it ran with."""
    (run_dir / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (run_dir / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Git commit, package versions, Python and the card, as far as they can be had."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "commit": _git_commit(),
        "python": platform.python_version(),
        "packages": versions,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
    }


def _git_commit() -> str | None:
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # a copy without its history, or no git: nothing to say
