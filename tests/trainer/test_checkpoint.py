"""Checkpoints on disk: whole or absent, the newest that can be read, nothing unpickled but tensors."""

import os
import pickle

import pytest
import torch

from tests.utils.test_inert_pickle import NESTED_KEY
from trainer.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    read_checkpoint,
    read_newest,
    remove_old,
    save_atomically,
)

STATE = {"state_dict": {"w": torch.arange(1000.0)}, "optimizer": {}, "scheduler": {}, "loader": {}}


def save(folder, epoch, step):
    path = checkpoint_path(folder, epoch, step)
    save_atomically({**STATE, "epoch": epoch, "global_step": 100 * epoch + step}, path)
    return path


def test_newest_is_the_furthest_not_the_latest_written(tmp_path):
    far = save(tmp_path, 10, 3)
    for epoch, step in ((2, 0), (10, 0), (9, 50)):
        save(tmp_path, epoch, step)
    path, state = read_newest(tmp_path)
    assert path == far
    assert state["global_step"] == 1003
    assert torch.equal(state["state_dict"]["w"], STATE["state_dict"]["w"])


def test_truncated_newest_is_passed_over_with_a_warning(tmp_path, caplog):
    whole, broken = save(tmp_path, 1, 0), save(tmp_path, 2, 0)
    os.truncate(broken, broken.stat().st_size // 2)
    path, _ = read_newest(tmp_path)
    assert path == whole
    assert broken.name in caplog.text


def test_what_is_no_regular_file_is_passed_over_with_a_warning(tmp_path, caplog):
    whole = save(tmp_path, 1, 0)
    checkpoint_path(tmp_path, 5, 0).symlink_to("nowhere")
    checkpoint_path(tmp_path, 6, 0).mkdir()
    os.mkfifo(checkpoint_path(tmp_path, 7, 0))
    checkpoint_path(tmp_path, 8, 0).write_bytes(NESTED_KEY)
    path, _ = read_newest(tmp_path)
    assert path == whole
    for epoch in (5, 6, 7, 8):
        assert checkpoint_path(tmp_path, epoch, 0).name in caplog.text
        with pytest.raises((ValueError, FileNotFoundError), match=f"epoch{epoch}"):
            read_checkpoint(checkpoint_path(tmp_path, epoch, 0))


def test_checkpoints_that_cannot_be_read_do_not_count_among_the_newest(tmp_path):
    damaged = save(tmp_path, 9, 0)
    os.truncate(damaged, damaged.stat().st_size // 2)
    for epoch in (1, 2, 3):
        save(tmp_path, epoch, 0)
        remove_old(tmp_path, keep=1)
        assert read_newest(tmp_path)[0] == checkpoint_path(tmp_path, epoch, 0)
    assert list_checkpoints(tmp_path) == [damaged, checkpoint_path(tmp_path, 3, 0)]


def test_no_checkpoint_is_none(tmp_path):
    assert read_newest(tmp_path) is None


def test_only_the_newest_stay_and_other_files_are_left_alone(tmp_path):
    for epoch in range(1, 5):
        save(tmp_path, epoch, 0)
    (tmp_path / "model_best.pth").write_bytes(b"best")
    remove_old(tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "checkpoint-epoch4.pth",
        "checkpoint-epoch3.pth",
    ]
    assert (tmp_path / "model_best.pth").exists()


def test_failed_write_leaves_the_earlier_file_and_names_it(tmp_path, monkeypatch):
    path = save(tmp_path, 1, 0)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"checkpoint-epoch1\.pth.*No space left"):
        save(tmp_path, 1, 0)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_hostile_file_is_refused_without_running_it(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = tmp_path / "checkpoint-epoch1.pth"
    torch.save({**STATE, "config": Hostile()}, path)
    assert pickle.dumps(Hostile())  # it would run wherever it is unpickled
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        read_checkpoint(path)
    assert not marker.exists()


def test_other_files_are_no_training_checkpoints(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match=r"weights\.pth: not a training checkpoint, it lacks epoch"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        read_checkpoint(tmp_path / "gone.pth")
