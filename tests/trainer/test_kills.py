"""kill -9 at random moments: whatever the run was doing, it goes on to the losses of an undisturbed one."""

import random
import time

import pytest

import train
from tests.trainer.runs import losses, wait_until
from trainer.checkpoints import list_checkpoints

KILLS = 20


@pytest.mark.heavy
def test_killed_twenty_times_the_losses_are_those_of_an_undisturbed_run(start, arguments, tmp_path):
    settings = {
        "arch__freeze_text_embeddings": True,  # smaller checkpoints
        "lr_scheduler__type": "milestones",  # does not depend on how long the run will be
        "trainer__epochs": 1000,
        "trainer__save_every_steps": 2,
        "trainer__keep_last": 2,
        "trainer__log_every_s": 0.1,
        "trainer__validate_every": 4,
    }
    command = arguments("--resume", "auto", name="killed", **settings)
    killed = tmp_path / "killed"
    begin = time.monotonic()
    process = start(command, tmp_path / "says")
    wait_until(lambda: list_checkpoints(killed))
    start_up = time.monotonic() - begin
    moments = random.Random(0)
    for _ in range(KILLS):
        time.sleep(moments.uniform(0, 2 * start_up))  # starting, reading, training, saving or validating
        assert process.is_alive(), (tmp_path / "says").read_text()
        process.kill()
        process.join()
        process = start(command, tmp_path / "says")
    process.kill()
    process.join()

    settings["trainer__max_steps"] = losses(killed)[-1][0] + 4
    assert train.main(arguments("--resume", "auto", name="killed", **settings)) == 0
    assert train.main(arguments(name="undisturbed", **settings)) == 0
    assert losses(killed) == losses(tmp_path / "undisturbed")
    resumed = [line for line in (killed / "log.txt").read_text().splitlines() if "resumed from" in line]
    assert len({line.split()[-1] for line in resumed}) > KILLS / 4  # the kills came at different steps
    assert not list(killed.glob(".*.unfinished"))
