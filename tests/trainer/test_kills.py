"""kill -9 at random moments: whatever the run was doing, it goes on to the losses of an undisturbed one."""

import random
import time

import pytest

import train
from tests.trainer.runs import losses, wait_until
from trainer.checkpoint import list_checkpoints


@pytest.mark.heavy
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.thorough)])
def test_killed_again_and_again_the_losses_are_those_of_an_undisturbed_run(kills, start, arguments, tmp_path):
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
    moments = random.Random(0)

    def wait_for_news(before: list) -> float:
        """Seconds until the run has written a checkpoint more."""
        begin = time.monotonic()
        wait_until(lambda: list_checkpoints(killed)[:1] != before[:1])
        return time.monotonic() - begin

    process = start(command, tmp_path / "says")
    start_up = wait_for_news([])
    for kill in range(kills):
        if kill % 2:  # while it trains, saves or validates
            wait_for_news(list_checkpoints(killed))
            time.sleep(moments.uniform(0, start_up / 2))
        else:  # at any moment, first of all while it starts and reads the checkpoint
            time.sleep(moments.uniform(0, 1.5 * start_up))
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
    assert len({line.split()[-1] for line in resumed}) > kills / 3  # the kills came at different steps
    assert not list(killed.glob(".*.unfinished"))
