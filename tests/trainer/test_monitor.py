"""The best checkpoint: which it is, and that it is the same file, whole at any time."""

import json
import os

from trainer.checkpoints import BEST_NAME, mark_best
from trainer.monitor import Monitor


def checkpoint(folder, name: str):
    path = folder / name
    path.write_bytes(name.encode())
    return path


def test_the_best_so_far_is_kept_across_runs(tmp_path):
    for epoch, value in enumerate([10.0, 30.0, 20.0, 30.0, 40.0], start=1):
        monitor = Monitor("max r1", tmp_path)  # anew, as after resuming
        monitor.judge({"r1": value}, checkpoint(tmp_path, f"epoch{epoch}"))
        expected = {1: 1, 2: 2, 3: 2, 4: 2, 5: 5}[epoch]
        assert (tmp_path / BEST_NAME).read_bytes() == f"epoch{expected}".encode()
    note = json.loads((tmp_path / "model_best.json").read_text())
    assert note == {"monitor": "max r1", "value": 40.0, "checkpoint": "epoch5"}


def test_the_lowest_where_less_is_better(tmp_path):
    monitor = Monitor("min rank", tmp_path)
    for name, value in (("a", 3.0), ("b", 2.0), ("c", 5.0)):
        monitor.judge({"rank": value}, checkpoint(tmp_path, name))
    assert (tmp_path / BEST_NAME).read_bytes() == b"b"


def test_another_metric_starts_anew(tmp_path):
    Monitor("max r1", tmp_path).judge({"r1": 90.0}, checkpoint(tmp_path, "a"))
    Monitor("max order", tmp_path).judge({"order": 5.0}, checkpoint(tmp_path, "b"))
    assert (tmp_path / BEST_NAME).read_bytes() == b"b"


def test_a_metric_that_is_not_there_is_named(tmp_path, caplog):
    Monitor("max r1", tmp_path).judge({"order": 5.0}, checkpoint(tmp_path, "a"))
    assert "no metric 'r1' (trainer.monitor); it has order" in caplog.text
    assert not (tmp_path / BEST_NAME).exists()


def test_the_best_costs_no_second_copy(tmp_path):
    path = checkpoint(tmp_path, "a")
    mark_best(path)
    mark_best(path)  # again, after being killed in between
    assert os.path.samefile(path, tmp_path / BEST_NAME)
    path.unlink()  # when newer ones have come
    assert (tmp_path / BEST_NAME).read_bytes() == b"a"
    assert [p.name for p in tmp_path.iterdir()] == [BEST_NAME]


def test_without_hard_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    mark_best(checkpoint(tmp_path, "a"))
    assert (tmp_path / BEST_NAME).read_bytes() == b"a"
