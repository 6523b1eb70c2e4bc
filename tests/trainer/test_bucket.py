"""A run's folder copied to a bucket, and fetched from there by a machine that has none of it."""

import shutil

import pytest

import train
from tests.trainer.runs import losses
from trainer.bucket import Bucket
from trainer.checkpoint import list_checkpoints

SHORT = {"data__val": [], "trainer__monitor": None, "trainer__keep_last": 1, "trainer__save_every_steps": 2}


@pytest.mark.heavy
def test_a_run_goes_on_from_the_bucket_where_its_folder_is_lost(undisturbed, arguments, tmp_path):
    expected, run, bucket = losses(undisturbed), tmp_path / "run", tmp_path / "bucket"
    settings = {**SHORT, "name": "run", "trainer__bucket": f"file://{bucket}"}
    assert train.main(arguments(**settings, trainer__max_steps=4)) == 0
    there = {path.name for path in (bucket / "run").iterdir()}
    assert {path.name for path in run.iterdir()} - there == {"lock"}
    assert {"checkpoint-epoch0-step2.pth", "metrics.jsonl", "log.txt", "config.json"} <= there
    assert "checkpoint-epoch0-step1.pth" not in there  # old ones go there, too
    assert (bucket / "run/metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()

    shutil.rmtree(run)
    with pytest.raises(SystemExit) as ended:
        train.main(arguments(**settings))
    assert ended.value.code == 2  # not begun anew over it
    shutil.rmtree(run)
    (bucket / "run/checkpoint-epoch1.pth").write_bytes(b"half of one")
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    assert losses(run) == expected
    said = (run / "log.txt").read_text()
    assert "step 4/4" in said  # of before
    assert f"resumed from {run}/checkpoint-epoch0-step2.pth" in said  # passing over the half one
    assert (bucket / "run/checkpoint-epoch2.pth").read_bytes() == list_checkpoints(run)[0].read_bytes()


def test_a_bucket_that_fails_is_said_and_ends_the_run_last(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data_loader.video.sources.WAITS", ())
    (tmp_path / "bucket").write_text("a file is in the way")
    settings = {
        **SHORT,
        "name": "run",
        "trainer__bucket": f"file://{tmp_path}/bucket",
        "trainer__max_steps": 4,
    }
    with pytest.raises(SystemExit) as ended:
        train.main(arguments(**settings))
    assert ended.value.code == 1
    assert "lacks the last of" in capsys.readouterr().err
    assert "step 4/4" in (tmp_path / "run/log.txt").read_text()
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-epoch0-step2.pth"]


def test_nothing_that_opens_it(tmp_path):
    with pytest.raises(ValueError, match="fsspec knows no nowhere://"):
        Bucket("nowhere://bucket", tmp_path)


def test_a_sharded_checkpoint(bucket, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint-epoch1.dcp").mkdir(parents=True)
    (run / "checkpoint-epoch1.dcp/part").write_bytes(b"tensors")
    (run / ".half.unfinished").write_bytes(b"x")
    with Bucket(bucket, run) as there:
        there.update()
    assert there.checkpoints() == ["checkpoint-epoch1.dcp"]
    other = Bucket(bucket, tmp_path / "elsewhere" / "run")
    other.run_dir.mkdir(parents=True)
    other.fetch("checkpoint-epoch1.dcp")
    assert (other.run_dir / "checkpoint-epoch1.dcp/part").read_bytes() == b"tensors"
    assert not (other.run_dir / ".half.unfinished").exists()
    shutil.rmtree(run / "checkpoint-epoch1.dcp")
    there.copy()
    assert there.checkpoints() == []
