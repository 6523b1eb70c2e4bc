"""Shards of every type that they are read back as: the samples of the files, from the files' own lists."""

import json

import pytest
import torch

from data_loader import build_dataset
from data_loader.prepare.__main__ import main as prepare
from tests.data_loader import worlds
from tests.data_loader.worlds import options, put_json, put_table, put_video

MASK = {"mask_ratio": 0.5, "num_patches": 4}


def captions(folder):
    """Several of a video, names with dots, and one name in two folders."""
    rows = [["one", "a/v.1.mp4"], ["two", "a/v.1.mp4"], ["three", "b/v.1.mp4"], ["four", "c.mp4"]]
    put_table(folder / "meta_data/train.tsv", rows, ["caption", "path"])
    for _, path in rows:
        put_video(folder / "data" / path)
    return {"files": "train.tsv"}, {}


def spans(folder):
    rows = [
        [f"{video} from {start}", f"{video}.mp4", start, start + 0.3 if start < 0.9 else ""]
        for video in ("a", "b")
        for start in (0, 0.35, 0.7, 0.95)
    ]
    put_table(folder / "meta_data/train.tsv", rows, ["caption", "path", "start", "end"])
    for video in ("a", "b"):
        put_video(folder / f"data/{video}.mp4", 60)
    return {"files": "train.tsv"}, {}


def sorting(folder):
    spans(folder)
    return {"files": "train.tsv", "num_clips": 2}, {"num_clips": 2}


def narrated(folder):
    rows = [[f"{i}.mp4", f"{i}.json"] for i in range(3)]
    put_table(folder / "meta_data/train.tsv", rows, ["path", "transcript"])
    for video, words in rows:
        put_video(folder / "data" / video, 60)
        put_json(folder / "data" / words, worlds.transcript([f"{video}w{k}" for k in range(60)]))
    return {"files": "train.tsv", "num_clips": 2}, {"num_clips": 2}


def msrvtt(folder):
    worlds.msrvtt(folder)
    return {"cut": "jsfusion"}, {}


def didemo(folder):
    worlds.didemo(folder)
    return {}, {}


TYPES = {
    "captions": ("csv", captions),
    "spans": ("csv", spans),
    "sorting": ("csv", sorting),
    "narrated": ("narrated", narrated),
    "msrvtt": ("msrvtt", msrvtt),
    "didemo": ("didemo", didemo),
}


def pack(folder, kind, of_files):
    given = [part for key, value in of_files.items() for part in ("--set", f"{key}={value}")]
    where = ["--root", str(folder / "data"), "--meta", str(folder / "meta_data"), "--workers", "1"]
    return prepare(["shards", kind, str(folder / "shards"), *where, "--videos-per-shard", "2", *given])


def in_shards(folder, kind, view=None, **more):
    opened = {**options(folder), "root": folder / "shards", "format": "webdataset", **MASK, **more}
    return build_dataset(kind, "train", view=view, **opened)


@pytest.mark.parametrize("name", TYPES)
def test_the_samples_are_those_of_the_files(tmp_path, capsys, name):
    kind, make = TYPES[name]
    of_files, of_shards = make(tmp_path)
    assert pack(tmp_path, kind, of_files) == 0
    said = capsys.readouterr().out
    assert ("6 records share a file with another" in said) == (name == "spans")
    for view in ("train", "test"):
        files = build_dataset(kind, "train", view=view, **options(tmp_path), **MASK, **of_files)
        shards = in_shards(tmp_path, kind, view, **of_shards)
        assert len(files) == len(shards) > 1 and shards.records.num_clips == files.records.num_clips
        for epoch, index in [(epoch, index) for epoch in range(3) for index in range(len(files))]:
            a, b = files[(epoch, index)], shards[(epoch, index)]
            assert a.keys() == b.keys() and not a["failures"] and torch.equal(a["video"], b["video"])
            assert all(a[key] == b[key] for key in a if key not in ("video", "keep_ind"))


def test_what_does_not_fit_is_an_error_with_what_to_do(tmp_path, capsys):
    of_files, _ = sorting(tmp_path)
    (tmp_path / "data/b.mp4").unlink()
    assert pack(tmp_path, "csv", of_files) == 0
    assert "1 video in 1 shard, 1 left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="num_frames is 12, but a sample has 20 spans"):
        in_shards(tmp_path, "csv", num_clips=20)
    for num_clips, reason in ((1, "set num_clips"), (9, "none of its spans are 9 that follow one another")):
        sample = in_shards(tmp_path, "csv", "val", num_clips=num_clips)[0]
        assert reason in sample["missing"].reason
    with pytest.raises(SystemExit):
        pack(tmp_path, "labels", {})
    assert "invalid choice: 'labels' (choose from" in capsys.readouterr().err
    for given in ({"num_clips": "two"}, {"root": "x"}):
        assert pack(tmp_path, "csv", {**of_files, **given}) == 1
        assert f"--set {next(iter(given))}=" in capsys.readouterr().err


def test_a_list_that_changed_makes_its_shards_anew(tmp_path):
    of_files, _ = spans(tmp_path)
    assert pack(tmp_path, "csv", of_files) == 0
    paths = sorted((tmp_path / "shards").glob("*.tar"))
    before = [path.stat().st_mtime_ns for path in paths]
    table = tmp_path / "meta_data/train.tsv"
    table.write_text(table.read_text().replace("b from 0.7", "something else"))
    paths[0].unlink()
    assert pack(tmp_path, "csv", of_files) == 0
    after = [path.stat().st_mtime_ns for path in paths]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, False]
    found = in_shards(tmp_path, "csv").records
    assert json.dumps([found[i].captions for i in range(len(found))]).count("something else") == 1
