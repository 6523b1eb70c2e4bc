"""Whole runs of train.py on generated videos: what they write, resuming, stopping, failing."""

import gc
import json
import logging

import pytest
import torch

import train
from model import create_model, load_checkpoint
from model.convert import convert
from tests.trainer.runs import LIMIT, losses, rows
from trainer.checkpoint import list_checkpoints, read_checkpoint
from utils.schema import TrainerConfig


def test_a_run_writes_what_people_and_programs_need(undisturbed):
    steps = rows(undisturbed, "step")
    assert [row["set"] for row in steps[:4]] == ["yttemporal", "webvid"] * 2
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert all("sorting" in row for row in steps[::2])
    assert not any("sorting" in row for row in steps[1::2])
    assert steps[-1]["clips_per_s"] > 0
    last = rows(undisturbed, "validation")[-1]
    assert {"yttemporal_order_accuracy", "webvid_t2v_R1", "webvid_v2t_R1"} <= set(last)
    assert json.loads((undisturbed / "config.json").read_text())["name"] == "undisturbed"
    state = torch.load(undisturbed / "checkpoint-epoch2.pth", weights_only=True)
    assert (state["arch"], state["epoch"], state["global_step"]) == ("TVTSv2_Demo", 2, 12)
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])
    assert len(environment["commit"].split("-")[0]) == 40
    assert environment["processes"] == 1


def test_a_new_run_does_not_overwrite_an_old_one(undisturbed, arguments, capsys):
    with pytest.raises(SystemExit):
        train.main(arguments(name="undisturbed"))
    assert "--resume auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer__precision", "fp4", "one of bf16, fp16, fp32, fp8"),
        ("trainer__precision", "fp16", "needs a GPU"),
        ("arch__start_from", "/nowhere.pth", "nowhere"),
        ("loss__gather", "some", "gather"),
        ("trainer__engine", "deepspeed", "ddp, fsdp"),
        (
            "trainer__fsdp__blocks_per_unit",
            0,
            "trainer.fsdp.blocks_per_unit is 0; it must be a whole number from 1 on",
        ),
        ("trainer__fsdp__reshard_after_forward", "no", "must be true or false"),
        ("trainer__accumulate", 0, "from 1 on"),
        ("trainer__monitor", "val_loss", "monitor"),
        ("trainer__monitor", "max webvid_order_accuracy", "did you mean 'yttemporal_order_accuracy'"),
        ("trainer__monitor", "max val_loss", "validation has no metric 'val_loss'"),
        ("trainer__keep_last", 0, "trainer.keep_last is 0"),
        ("trainer__validate_every", 0, "trainer.validate_every is 0"),
        ("trainer__epochs", None, "trainer.epochs is null; it must be a whole number from 1 on"),
        ("trainer__timeout_s", "10 min", 'trainer.timeout_s is "10 min"; it must be a number above 0'),
        ("trainer__device", "tpu9", "none of cpu, cuda"),
        ("data__train", [], "data.train is []; it must be a list of one set or more"),
        ("data__val", [{"root": "x"}], "'data.val.0.type' is missing"),
        (
            "data__val",
            [{"type": "webvid", "root": "/nowhere"}],
            "data.val.0, of type webvid: the folder",
        ),
        (
            "data__train.1.format",
            "tar",
            'data.train.1.format is "tar"; it must be one of files, webdataset, or null',
        ),
    ],
)
def test_values_that_cannot_be_used_are_named_before_training(
    arguments, tmp_path, capsys, key, value, message
):
    with pytest.raises(SystemExit):
        train.main(arguments(name="wrong", **{key: value}))
    assert message in capsys.readouterr().err
    assert not list_checkpoints(tmp_path / "wrong")


def test_the_default_monitor_is_one_that_the_default_sets_have(arguments, tmp_path):
    monitor = TrainerConfig().monitor
    assert train.main(arguments(name="best", trainer__monitor=monitor, trainer__max_steps=1)) == 0
    note = json.loads((tmp_path / "best/model_best.json").read_text())
    assert note["monitor"] == monitor == "max yttemporal_order_accuracy"
    assert note["value"] == rows(tmp_path / "best", "validation")[-1]["yttemporal_order_accuracy"]


def test_without_a_monitor_there_is_no_best_checkpoint(arguments, tmp_path):
    assert train.main(arguments(name="none", trainer__monitor=None, trainer__max_steps=1)) == 0
    assert rows(tmp_path / "none", "validation")
    assert not list((tmp_path / "none").glob("model_best*"))


@pytest.mark.parametrize("key", ["data.reader", "data.val.1.reader"])
def test_a_reader_that_does_not_exist_is_named_before_anything_is_built(arguments, tmp_path, capsys, key):
    with pytest.raises(SystemExit):
        train.main(arguments(name="wrong", **{key: "opencv"}))
    assert f'{key} is "opencv"; it must be one of pyav, decord' in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


def test_a_missing_list_is_said_with_the_key_that_asks_for_it(world, arguments, tmp_path, capsys):
    """The validation sets are still those of the config file."""
    (tmp_path / "mine.csv").write_text("path,caption\na.mp4,a dog\n")
    mine = {"type": "csv", "root": str(world / "WebVid"), "files": "mine.csv"}
    with pytest.raises(SystemExit):
        train.main(arguments(name="mine", data__train=[mine], data__meta=str(tmp_path)))
    said = capsys.readouterr().err
    assert f"data.val.0, of type yttemporal: {tmp_path / 'yttemporal_val.csv'} is missing" in said


@pytest.mark.heavy
@pytest.mark.parametrize(("engine", "suffix"), [("ddp", "pth"), ("fsdp", "dcp")])
def test_two_processes_train_validate_and_resume(start, arguments, tmp_path, engine, suffix):
    settings = {"name": "two", "trainer__epochs": 1, "loss__gather": "exact", "trainer__engine": engine}
    for process in start.ranks(2, arguments(**settings), tmp_path / "says"):
        process.join(LIMIT)
        assert process.exitcode == 0, (tmp_path / "says0").read_text()[-3000:]
    run_dir = tmp_path / "two"
    steps = [row["step"] for row in rows(run_dir, "step")]
    assert steps == [1, 2, 3, 4]  # 6 a rank in batches of 4: 2 joint steps
    assert len(rows(run_dir, "validation")) == 1
    assert [path.name for path in list_checkpoints(run_dir)] == [f"checkpoint-epoch1.{suffix}"]
    assert read_checkpoint(run_dir / f"checkpoint-epoch1.{suffix}")["world_size"] == 2
    convert(run_dir / f"checkpoint-epoch1.{suffix}", tmp_path / "plain")
    same = [create_model("TVTSv2_Demo") for _ in range(2)]
    load_checkpoint(same[0], tmp_path / "plain")
    load_checkpoint(same[1], run_dir / "model_best.pth")
    assert all(map(torch.equal, same[0].state_dict().values(), same[1].state_dict().values()))

    settings |= {"trainer__epochs": 2, "trainer__engine": "ddp"}
    assert train.main(arguments("--resume", "auto", **settings)) == 0  # on one process
    steps = rows(run_dir, "step")
    assert steps[-1]["step"] == 10  # 4 as before, then a whole epoch of 3 joint steps
    assert steps[-1]["lr_new"] == pytest.approx(1.2e-3 * 11 / 100)  # as at the 12th step of one process


def test_micro_batches_change_nothing_but_rounding(undisturbed, arguments, tmp_path):
    assert train.main(arguments(name="parts", trainer__accumulate=2, trainer__max_steps=4)) == 0
    for got, want in zip(losses(tmp_path / "parts"), losses(undisturbed)[:4], strict=True):
        assert got[:2] == want[:2]
        assert got[2:4] == pytest.approx(want[2:4], rel=1e-4)


def test_long_lived_objects_are_frozen_until_the_run_is_over(arguments):
    """Seen by what listens to the log, as the run's last line is written."""
    frozen: list[int] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("step 2/2 "):
                frozen.append(gc.get_freeze_count())

    listener = Listener()
    logging.getLogger("trainer.trainer").addHandler(listener)
    try:
        assert train.main(arguments(name="frozen", trainer__max_steps=2)) == 0
    finally:
        logging.getLogger("trainer.trainer").removeHandler(listener)
    assert frozen[-1] > 0 and gc.get_freeze_count() == 0
