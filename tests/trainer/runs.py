"""Real training processes for the tests, and what a run has written."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

import CLIP
import train

# What tests of two processes run on: gloo, and where there are two GPUs NCCL as well.
DEVICES = ("cpu", "cuda") if torch.cuda.device_count() > 1 else ("cpu",)

LIMIT = 300  # seconds that a test waits for processes at most: a busy machine may take minutes

# Below the ports that the system gives to whoever asks for any: none of those is ever found taken, or taken
# between its choice and its use.
PORTS = range(20_000, 32_000)

Main = Callable[[list[str]], int | None]


def rows(run_dir: Path, kind: str) -> list[dict]:
    """The rows of metrics.jsonl of a kind."""
    path = run_dir / "metrics.jsonl"
    # Behind the last end of a line, the run may be writing.
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def losses(run_dir: Path) -> list[tuple]:
    """Step, set and losses of every step of a run."""
    return [
        (r["step"], r["set"], r["loss"], r["contrastive"], r.get("sorting")) for r in rows(run_dir, "step")
    ]


def wait_until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Returns when `condition` holds; fails after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit} s"
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Starter:
    """Starts processes forked from a server that has imported everything: that takes longest.

    They run `train.main`, or another function that takes a list of arguments.

    Each leads a process group of its own, as if a scheduler had started it; what it says goes to a file.
    """

    def __init__(self):
        self.started: list[multiprocessing.Process] = []
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__, "open_clip", "torch._dynamo"])
        warm = self.context.Process(target=CLIP.tokenize, args=(["a word"],))
        warm.start()
        warm.join()

    def __call__(
        self,
        arguments: list[str],
        says: Path,
        environment: Mapping[str, str] | None = None,
        main: Main = train.main,
    ) -> multiprocessing.Process:
        process = self.context.Process(target=_run, args=(main, arguments, says, dict(environment or {})))
        process.start()
        self.started.append(process)
        return process

    def ranks(
        self, number: int, arguments: list[str], says: Path, main: Main = train.main
    ) -> list[multiprocessing.Process]:
        """The processes of one run, as torchrun would start them. Rank k writes to `says` + k."""
        port = free_port()
        common = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1"}
        return [
            self(
                arguments,
                says.with_name(f"{says.name}{rank}"),
                {
                    k: str(v)
                    for k, v in {**common, "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}.items()
                },
                main,
            )
            for rank in range(number)
        ]

    def end_all(self) -> None:
        for process in self.started:
            if process.is_alive():
                os.killpg(process.pid, signal.SIGKILL)
            process.join()


def _run(main: Main, arguments: list[str], says: Path, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    with says.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(main(arguments))
