"""Finding videos, and feature tables on disk."""

import numpy as np
import pytest

from downstream.clips import Clip, cut
from downstream.feature_files import FeatureTable, find_videos, join_tables, read_features, write_features


@pytest.fixture
def tree(tmp_path):
    for name in ("b.mp4", "a.MKV", "deep/er/c.webm", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_folders_patterns_and_files(tree):
    assert find_videos([tree]) == [str(tree / name) for name in ("a.MKV", "b.mp4", "deep/er/c.webm")]
    assert find_videos([tree / "**/*.webm"]) == [str(tree / "deep/er/c.webm")]
    assert find_videos([tree / "notes.txt", tree / "gone.mp4"]) == [
        str(tree / "notes.txt"),
        str(tree / "gone.mp4"),
    ]


def test_each_video_once_in_the_order_given(tree):
    assert find_videos([tree / "b.mp4", tree]) == [
        str(tree / name) for name in ("b.mp4", "a.MKV", "deep/er/c.webm")
    ]


def test_a_list_is_relative_to_its_folder(tree, monkeypatch):
    (tree / "list.txt").write_text("b.mp4\n\ndeep\n")
    assert find_videos([], tree / "list.txt") == [str(tree / "b.mp4"), str(tree / "deep/er/c.webm")]


def test_nothing_found_is_a_mistake(tree):
    (tree / "empty").mkdir()
    for wrong in ([], [tree / "empty"], [tree / "*.avi"]):
        with pytest.raises(ValueError, match=r"no videos|no file"):
            find_videos(wrong)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet"])
def test_a_table_comes_back_as_it_was(suffix, tmp_path):
    columns = {
        "path": ["a b.mp4", "ü,\n.mp4"],
        "duration": np.array([1.5, np.nan]),
        "num_frames": np.array([3, 4]),
    }
    table = FeatureTable(np.arange(6, dtype=np.float32).reshape(2, 3), columns, {"arch": "x", "window": None})
    write_features(tmp_path / f"t{suffix}", table)
    back = read_features(tmp_path / f"t{suffix}")
    np.testing.assert_array_equal(back.features, table.features)
    assert back.columns["path"] == columns["path"] and back.facts == table.facts
    np.testing.assert_array_equal(back.columns["duration"], columns["duration"])
    assert back.columns["num_frames"].dtype == np.int64
    assert [path.name for path in tmp_path.iterdir()] == [f"t{suffix}"]
    twice = join_tables([table, back]).take([3, 0])
    assert twice.columns["path"] == ["ü,\n.mp4", "a b.mp4"]
    np.testing.assert_array_equal(twice.features, [[3, 4, 5], [0, 1, 2]])


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet"])
def test_a_strange_file_is_no_table(suffix, tmp_path):
    (tmp_path / f"t{suffix}").write_bytes(b"something else, and long enough to be looked at")
    with pytest.raises(ValueError):
        read_features(tmp_path / f"t{suffix}")


def test_windows_cover_the_video_without_crumbs():
    video = Clip("a.mp4", 1, 2)
    windows = cut(video, duration=10.0, window=4.0)
    assert [(w.start, w.end) for w in windows] == [(0, 4), (4, 8), (8, 10)]
    assert [(w.start, w.end) for w in cut(video, 8.3, 4.0)] == [(0, 4), (4, 8.3)]
    assert [w.span(100) for w in windows] == [(0, 40), (40, 80), (80, 100)]
    assert [w.span(2) for w in windows] == [(0, 1), (1, 2), (1, 2)]
