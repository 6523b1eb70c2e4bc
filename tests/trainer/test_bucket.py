"""A run's folder copied to a bucket, and fetched from there by a machine that has none of it."""

import shutil
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

import train
from tests.trainer.runs import losses
from tests.trainer.test_checkpoint import save
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
        Bucket("nowhere://bucket", tmp_path, "run")


def test_a_sharded_checkpoint(bucket, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint-epoch1.dcp").mkdir(parents=True)
    (run / "checkpoint-epoch1.dcp/part").write_bytes(b"tensors")
    (run / ".half.unfinished").write_bytes(b"x")
    (run / "evaluations").mkdir()
    (run / "evaluations/video_embeddings.safetensors").write_bytes(b"vectors")
    with Bucket(bucket, run, "run") as there:
        there.update()
    assert there.checkpoints() == ["checkpoint-epoch1.dcp"]
    assert not there.system.exists(f"{there.root}/evaluations")
    other = Bucket(bucket, tmp_path / "elsewhere" / "run", "run")
    other.run_dir.mkdir(parents=True)
    other.fetch("checkpoint-epoch1.dcp")
    assert (other.run_dir / "checkpoint-epoch1.dcp/part").read_bytes() == b"tensors"
    assert not (other.run_dir / ".half.unfinished").exists()
    shutil.rmtree(run / "checkpoint-epoch1.dcp")
    there.copy()
    assert there.checkpoints() == []


@pytest.fixture
def runs(tmp_path):
    """(folder of a run, its bucket as a process begins with it)."""
    run = tmp_path / "run"
    run.mkdir()
    return run, lambda keep=2: Bucket(f"file://{tmp_path}/bucket", run, "run", keep)


def names(bucket: Bucket) -> list[str]:
    return [name.removeprefix("checkpoint-").removesuffix(".pth") for name in bucket.checkpoints()]


def test_old_checkpoints_that_an_earlier_process_copied_go_too(runs):
    run, begun = runs
    for epoch in (1, 2):
        save(run, epoch, 0)
    begun().copy()
    (run / "checkpoint-epoch1.pth").unlink()  # as the next process does, before it copies
    save(run, 3, 0)
    begun(keep=None).copy()
    assert names(begun()) == ["epoch3", "epoch2", "epoch1"]
    begun().copy()
    assert names(begun()) == ["epoch3", "epoch2"]
    (run / "checkpoint-epoch2.pth").unlink()  # of a machine that has fetched the newest alone
    begun().copy()
    assert names(begun()) == ["epoch3", "epoch2"]


def test_runs_whose_names_end_alike_do_not_share_a_folder(tmp_path):
    for name, epoch in (("a/run", 1), ("b/run", 2)):
        run = tmp_path / name
        run.mkdir(parents=True)
        save(run, epoch, 0)
        Bucket(f"file://{tmp_path}/bucket", run, name).copy()
    assert names(Bucket(f"file://{tmp_path}/bucket", tmp_path / "b/run", "b/run")) == ["epoch2"]


def test_a_damaged_checkpoint_here_is_replaced_by_that_of_the_bucket(runs):
    run, begun = runs
    whole = save(run, 2, 0).read_bytes()
    begun().copy()
    (run / "checkpoint-epoch2.pth").write_bytes(whole[:100])
    begun().fetch_newest()
    assert (run / "checkpoint-epoch2.pth").read_bytes() == whole


class Flaky(LocalFileSystem):
    """Breaks once in the middle of a folder."""

    broken = False

    def get_file(self, rpath, lpath, **options):
        if Path(rpath).name == "b" and not self.broken:
            self.broken = True
            raise OSError("connection reset")
        super().get_file(rpath, lpath, **options)


def test_a_folder_that_breaks_off_while_it_is_fetched_comes_whole(runs, monkeypatch):
    run, begun = runs
    monkeypatch.setattr("data_loader.video.sources.WAITS", (0,))
    folder = run / "checkpoint-epoch1.dcp"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    begun().copy()
    shutil.rmtree(folder)
    bucket = begun()
    bucket.system = Flaky(skip_instance_cache=True)
    bucket.fetch(folder.name)
    assert bucket.system.broken
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["a", "b", "c"]


def test_going_back_is_refused_while_the_bucket_has_further_checkpoints(
    undisturbed, arguments, tmp_path, capsys
):
    settings = {"name": "undisturbed", "trainer__bucket": f"file://{tmp_path}/bucket"}
    Bucket(settings["trainer__bucket"], undisturbed, "undisturbed").copy()
    *further, first = list_checkpoints(undisturbed)
    for path in further:
        path.unlink()
    with pytest.raises(SystemExit):
        train.main(arguments("--resume", str(first), **settings))
    said = capsys.readouterr().err
    assert f"bucket/undisturbed holds checkpoints beyond {first.name}: {further[0].name}" in said
