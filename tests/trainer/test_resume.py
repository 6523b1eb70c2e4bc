"""Going on with a run: to the same losses, by the config's settings, on another number of processes."""

import json
import os

import numpy as np
import pytest
import torch

import train
from tests.trainer.runs import LIMIT, losses, rows
from trainer.checkpoint import (
    changes,
    list_checkpoints,
    random_state,
    read_checkpoint,
    set_random_state,
)

OFTEN = {"trainer__save_every_steps": 2, "trainer__keep_last": None}


def keep_up_to(run_dir, name: str) -> None:
    """As if the run had been killed just after it wrote the checkpoint `name`."""
    newest = list_checkpoints(run_dir)
    names = [path.name for path in newest]
    for path in newest[: names.index(name)]:
        path.unlink()


@pytest.mark.heavy
def test_from_the_middle_of_an_epoch_the_losses_are_those_of_an_undisturbed_run(
    undisturbed, arguments, tmp_path
):
    assert train.main(arguments(name="often", **OFTEN)) == 0
    often = tmp_path / "often"
    assert losses(often) == losses(undisturbed)  # the same seed, and saving changes nothing
    keep_up_to(often, "checkpoint-epoch0-step1.pth")
    assert train.main(arguments("--resume", "auto", name="often", **OFTEN)) == 0
    assert losses(often) == losses(undisturbed)
    assert [row["epoch"] for row in rows(often, "validation")] == [1, 2]


def test_a_truncated_newest_checkpoint_is_passed_over(undisturbed, arguments, capsys):
    newest, before = list_checkpoints(undisturbed)
    expected = losses(undisturbed)
    os.truncate(newest, newest.stat().st_size - 1000)
    assert train.main(arguments("--resume", "auto", name="undisturbed")) == 0
    said = (undisturbed / "log.txt").read_text()
    assert f"passing over {newest}: not a whole checkpoint" in said
    assert f"resumed from {before}" in said
    assert losses(undisturbed) == expected


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"trainer__max_steps": 100}, "2 epochs are done and trainer.epochs is 2"),
        ({"trainer__epochs": 3, "trainer__max_steps": 11}, "12 steps are done and trainer.max_steps is 11"),
    ],
)
def test_a_finished_run_resumed_stays_as_it_is_and_says_why(undisturbed, arguments, settings, why):
    before = (undisturbed / "metrics.jsonl").read_text()
    assert train.main(arguments("--resume", "auto", name="undisturbed", **settings)) == 0
    assert (undisturbed / "metrics.jsonl").read_text() == before
    assert f"nothing left to train: {why}; set it higher to go on" in (undisturbed / "log.txt").read_text()


def test_the_end_by_max_steps_is_that_of_a_joint_step_and_said_so(arguments, tmp_path):
    settings = {"name": "odd", "trainer__max_steps": 7, "data__val": [], "lr_scheduler__warmup_steps": 0}
    assert train.main(arguments(**{**settings, "trainer__max_steps": 1})) == 0
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    said = (tmp_path / "odd" / "log.txt").read_text()
    assert "step 2/2 " in said and "step 8/8 " in said
    assert "trainer.max_steps is 7; its joint step ends at step 8" in said
    assert "checkpoint-epoch0-step1.pth: epoch 0, joint step 1; step 2" in said
    assert [row["step"] for row in rows(tmp_path / "odd", "step")] == list(range(1, 9))


def test_a_checkpoint_is_found_as_every_other_path_is(undisturbed, arguments, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = arguments("--resume", "~/undisturbed/checkpoint-epoch2.pth", name="undisturbed")
    assert train.main(given) == 0
    assert f"resumed from {undisturbed / 'checkpoint-epoch2.pth'}" in (undisturbed / "log.txt").read_text()


def test_learning_rates_and_decay_are_those_of_the_config(undisturbed, arguments):
    changed = {
        "trainer__epochs": 3,
        "optimizer__new_lr": 5e-5,
        "optimizer__clip_lr": 2e-5,
        "optimizer__weight_decay": 0.2,
        "lr_scheduler__type": "milestones",
        "lr_scheduler__warmup_steps": 0,
    }
    assert train.main(arguments("--resume", "auto", name="undisturbed", **changed)) == 0
    assert {(row["lr_new"], row["lr_clip"]) for row in rows(undisturbed, "step")[12:]} == {(5e-5, 2e-5)}
    groups = read_checkpoint(undisturbed / "checkpoint-epoch3.pth")["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.2}
    said = (undisturbed / "log.txt").read_text()
    assert "set differently from the checkpoint: optimizer.new_lr is 5e-05, was" in said


@pytest.mark.heavy
def test_milestones_passed_before_count_when_going_on(arguments, tmp_path):
    settings = {
        "name": "tenth",
        "lr_scheduler": {"type": "milestones", "milestones": [1], "gamma": 0.1, "warmup_steps": 0},
        "optimizer__new_lr": 1e-3,
    }
    assert train.main(arguments(**settings, trainer__max_steps=8)) == 0
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    rates = [row["lr_new"] for row in rows(tmp_path / "tenth", "step")]
    assert rates == pytest.approx([1e-3] * 6 + [1e-4] * 6)


@pytest.mark.heavy
def test_on_one_process_what_two_began(start, arguments, tmp_path):
    """The first epoch of two processes has 2 joint steps of 4 samples each; the rest of it follows on one."""
    settings = {
        "name": "two",
        "loss__gather": "exact",
        "lr_scheduler": {"type": "cosine", "warmup_steps": 100},
        "optimizer__new_lr": 1e-3,
    }
    processes = start.ranks(2, arguments(**settings, trainer__max_steps=2), tmp_path / "says")
    for process in processes:
        process.join(LIMIT)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "says0").read_text()
    run_dir = tmp_path / "two"
    state = read_checkpoint(run_dir / "checkpoint-epoch0-step1.pth")
    assert (state["world_size"], state["loader"]["seen"]) == (2, [8, 8])
    of_two = rows(run_dir, "validation")[-1]

    text = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join(text[:-1]))  # validated once more, by one process
    assert train.main(arguments("--resume", "auto", **settings, trainer__max_steps=2)) == 0
    assert rows(run_dir, "validation") == [pytest.approx(of_two)]  # no sample twice, none left out: 5 on 2

    assert train.main(arguments("--resume", "auto", **settings)) == 0
    steps = rows(run_dir, "step")
    # of 12 samples 8 were seen: 1 joint step is left, then a whole epoch of 3
    assert [row["step"] for row in steps] == list(range(1, 2 + 2 + 6 + 1))
    # the schedule follows the epochs: the last step is the 12th of two epochs of one process
    assert steps[-1]["lr_new"] == pytest.approx(1e-3 * 11 / 100)


def test_the_random_states_come_back():
    device = torch.device("cpu")
    state = random_state(device)
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    set_random_state(state, device)
    again = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    assert torch.equal(drawn[0], again[0])
    assert np.array_equal(drawn[1], again[1])


def test_changes_are_named_by_their_keys():
    before, now = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 3}
    assert list(changes(before, now)) == ["a.c is [2], was [1]", "d is None, was 2", "e is 3, was None"]


def test_going_back_is_refused_while_further_checkpoints_are_there(undisturbed, arguments, capsys):
    further = list_checkpoints(undisturbed)
    with pytest.raises(SystemExit):
        train.main(arguments("--resume", str(further[-1]), name="undisturbed"))
    said = capsys.readouterr().err
    assert f"holds checkpoints beyond {further[-1].name}" in said and further[0].name in said
    assert list_checkpoints(undisturbed) == further
    elsewhere = undisturbed.with_name("start.pth")  # also to the place of another run's
    elsewhere.write_bytes(further[-1].read_bytes())
    with pytest.raises(SystemExit):
        train.main(arguments("--resume", str(elsewhere), name="undisturbed"))
    assert "holds checkpoints beyond start.pth" in capsys.readouterr().err


def test_a_line_of_starts_that_was_cut_off_stops_no_run(undisturbed, arguments):
    starts = undisturbed / "starts.jsonl"
    for left in (starts.read_text()[:-100], ""):
        starts.write_text(left)
        assert train.main(arguments("--resume", "auto", name="undisturbed")) == 0
        assert json.loads(starts.read_text().splitlines()[-1])["step"] == 12


@pytest.mark.heavy
def test_with_max_steps_a_cosine_goes_on_falling_after_a_change_of_the_batch_size(arguments, tmp_path):
    """Epochs of 6 steps, then, with half the batch size, of 12."""
    often = {**OFTEN, "trainer__epochs": 50, "lr_scheduler__type": "cosine", "name": "cosine"}
    assert train.main(arguments(**often, trainer__max_steps=24, trainer__validate_every=50)) == 0
    keep_up_to(tmp_path / "cosine", "checkpoint-epoch2.pth")
    settings = {**often, "trainer__max_steps": 24, "trainer__validate_every": 50, "data__batch_size": 2}
    whole = [row["lr_new"] for row in rows(tmp_path / "cosine", "step")]
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    rates = [row["lr_new"] for row in rows(tmp_path / "cosine", "step")]
    assert len(rates) == 24
    assert rates == pytest.approx(whole, rel=1e-9)  # 24 steps are 24 steps, however long an epoch is
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_each_start_is_written_down(undisturbed, arguments):
    assert train.main(arguments("--resume", "auto", name="undisturbed", trainer__epochs=3)) == 0
    first, second = map(json.loads, (undisturbed / "starts.jsonl").read_text().splitlines())
    assert [first["step"], second["step"]] == [0, 12]
    assert [first["config"]["trainer"]["epochs"], second["config"]["trainer"]["epochs"]] == [2, 3]
    assert first["command"] and first["packages"]["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.heavy
def test_a_relative_save_dir_is_one_of_the_place_where_the_command_is_given(arguments, tmp_path, monkeypatch):
    """`configs` is a folder of the repository, too: whatever exists there does not matter."""
    settings = {"name": "here", "trainer__save_dir": "configs", "trainer__max_steps": 2, "data__val": []}
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        assert train.main(arguments("--resume", "auto", **settings)) == 0
        run_dir = tmp_path / place / "configs/here"
        assert [path.parent for path in list_checkpoints(run_dir)] == [run_dir]
        assert "nothing to resume" in (run_dir / "log.txt").read_text()
    monkeypatch.chdir(tmp_path / "one")
    assert train.main(arguments("--resume", "auto", **settings | {"trainer__max_steps": 4})) == 0
    assert "resumed from" in (tmp_path / "one/configs/here/log.txt").read_text()


def test_a_warm_up_beyond_the_end_of_the_run_is_said(arguments, tmp_path):
    settings = {"lr_scheduler__warmup_steps": 4, "trainer__max_steps": 4, "data__val": []}
    assert train.main(arguments(name="warm", **settings)) == 0
    assert (
        "lr_scheduler.warmup_steps is 4, but the run has 4 steps" in (tmp_path / "warm/log.txt").read_text()
    )
