"""kill -9 at random moments: whatever the run was doing, it goes on to the losses of an undisturbed one."""

import multiprocessing
import os
import random
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

import train
from tests.trainer.runs import losses
from trainer.checkpoints import list_checkpoints

KILLS = 20


def run(arguments: list[str]) -> None:
    """A training process. Its words go nowhere: a run says them to log.txt, too."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        sys.exit(train.main(arguments))


@pytest.fixture
def start():
    """Starts training processes, forked from a server that has PyTorch imported: that takes longest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(arguments: list[str]) -> multiprocessing.Process:
        process = context.Process(target=run, args=(arguments,))
        process.start()
        return process

    return start


def seconds_to_a_checkpoint(process: multiprocessing.Process, run_dir: Path) -> float:
    begin = time.monotonic()
    while not list_checkpoints(run_dir):
        assert process.is_alive()
        assert time.monotonic() - begin < 60
        time.sleep(0.01)
    return time.monotonic() - begin


@pytest.mark.heavy
def test_killed_twenty_times_the_losses_are_those_of_an_undisturbed_run(start, arguments, tmp_path):
    settings = {
        "arch__freeze_text_embeddings": True,  # smaller checkpoints
        "lr_scheduler__type": "milestones",  # does not depend on how long the run will be
        "trainer__epochs": 1000,
        "trainer__save_every_steps": 2,
        "trainer__keep_last": 2,
        "trainer__log_every_s": 0.1,
        "trainer__validate_every": 2,
    }
    killed = tmp_path / "killed"
    process = start(arguments("--resume", "auto", name="killed", **settings))
    start_up = seconds_to_a_checkpoint(process, killed)
    moments = random.Random(0)
    for _ in range(KILLS):
        time.sleep(moments.uniform(0, 2 * start_up))  # starting, reading, training, saving or validating
        assert process.is_alive()
        process.kill()
        process.join()
        process = start(arguments("--resume", "auto", name="killed", **settings))
    process.kill()
    process.join()

    reached = losses(killed)[-1][0]
    settings["trainer__max_steps"] = reached + 4
    assert train.main(arguments("--resume", "auto", name="killed", **settings)) == 0
    assert train.main(arguments(name="undisturbed", **settings)) == 0
    assert losses(killed) == losses(tmp_path / "undisturbed")
    resumed = [line for line in (killed / "log.txt").read_text().splitlines() if "resumed from" in line]
    assert len({line.split()[-1] for line in resumed}) > KILLS / 4  # the kills came at different steps
    assert not list(killed.glob(".*.unfinished"))
