"""Feature tables on disk, and the clips that their rows are of."""

import av
import numpy as np
import pytest

from data_loader.readers.errors import VideoReadTimeout
from data_loader.video import VideoReadError
from downstream import clips
from downstream.clips import Clip, ClipDataset, cut, find_clips, find_extent, read_together
from downstream.feature_files import FeatureTable, join_tables, load_features, write_features
from tests.data_loader.video_files import write_video as record_video

from .layouts import write_video


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet"])
def test_a_table_comes_back_as_it_was(suffix, tmp_path):
    columns = {
        "path": ["a b.mp4", "ü,\n.mp4"],
        "duration": np.array([1.5, np.nan]),
        "num_frames": np.array([3, 4]),
    }
    table = FeatureTable(np.arange(6, dtype=np.float32).reshape(2, 3), columns, {"arch": "x", "window": None})
    write_features(tmp_path / f"t{suffix}", table)
    back = load_features(tmp_path / f"t{suffix}")
    np.testing.assert_array_equal(back.features, table.features)
    assert back.columns["path"] == columns["path"] and back.metadata == table.metadata
    np.testing.assert_array_equal(back.columns["duration"], columns["duration"])
    assert back.columns["num_frames"].dtype == np.int64
    assert set(load_features(tmp_path / f"t{suffix}", without=("path", "duration")).columns) == {"num_frames"}
    assert [path.name for path in tmp_path.iterdir()] == [f"t{suffix}"]
    twice = join_tables([table, back]).take([3, 0])
    assert twice.columns["path"] == ["ü,\n.mp4", "a b.mp4"]
    np.testing.assert_array_equal(twice.features, [[3, 4, 5], [0, 1, 2]])


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet"])
def test_a_table_of_any_format_as_pandas(suffix, tmp_path):
    columns = {"path": ["a.mp4", "b.mp4"], "duration": np.array([1.5, 2.0])}
    write_features(
        tmp_path / f"t{suffix}",
        FeatureTable(np.arange(6, dtype=np.float32).reshape(2, 3), columns, {"arch": "x"}),
    )
    frame = load_features(tmp_path / f"t{suffix}").to_pandas()
    assert frame["path"].tolist() == ["a.mp4", "b.mp4"] and frame["duration"].tolist() == [1.5, 2.0]
    np.testing.assert_array_equal(np.stack(frame["features"]), [[0, 1, 2], [3, 4, 5]])
    assert frame.attrs == {"arch": "x"}


def test_tables_of_other_columns_are_not_joined():
    one = FeatureTable(np.zeros((1, 2), np.float32), {"path": ["a.mp4"]}, {})
    other = FeatureTable(np.zeros((1, 2), np.float32), {"text": ["a dog"]}, {})
    with pytest.raises(ValueError, match="columns text and path cannot be joined"):
        join_tables([one, other])


def test_a_table_with_tokens_as_pandas():
    tokens = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    frame = FeatureTable(tokens[:, 0], {"path": ["a", "b"], "tokens": tokens}, {}).to_pandas()
    np.testing.assert_array_equal(frame["tokens"][1], tokens[1])


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet"])
def test_a_strange_file_is_no_table(suffix, tmp_path):
    (tmp_path / f"t{suffix}").write_bytes(b"something else, and long enough to be looked at")
    with pytest.raises(ValueError):
        load_features(tmp_path / f"t{suffix}")


def test_a_clip_knows_the_state_of_its_file_or_shard(tmp_path):
    shard = tmp_path / "val-0.tar"
    shard.write_bytes(b"x" * 100)
    state = (100, shard.stat().st_mtime_ns)
    assert Clip.of_file(shard).key == (str(shard), *state)
    assert Clip.of_file(shard / "a.mp4").key == (str(shard / "a.mp4"), *state)
    assert Clip.of_file(tmp_path / "gone/a.mp4").key == (str(tmp_path / "gone/a.mp4"), -1, -1)


def test_windows_cover_the_video_without_crumbs():
    video = Clip("a.mp4", 1, 2)
    windows = cut(video, duration=10.0, window=4.0)
    assert [(w.start, w.end) for w in windows] == [(0, 4), (4, 8), (8, 10)]
    assert [(w.start, w.end) for w in cut(video, 8.3, 4.0)] == [(0, 4), (4, 8.3)]
    assert [w.span(100) for w in windows] == [(0, 40), (40, 80), (80, 100)]
    assert [w.span(2) for w in windows] == [(0, 1), (1, 2), (1, 2)]


def test_a_recording_that_does_not_say_how_long_it_is(tmp_path):
    """As browsers write them while the end is not known yet."""
    path = str(record_video(tmp_path / "a.webm", 50, "libvpx", container_options={"live": "1"}))
    with av.open(path) as container:
        assert container.duration is None and container.streams.video[0].duration is None
    windows, failed = find_clips([path], 0.8)
    assert failed == {} and [(w.start, w.span(50)) for w in windows] == [
        (0, (0, 20)),
        (0.8, (20, 40)),
        (1.6, (40, 50)),
    ]
    assert find_extent(path) == (pytest.approx(2.0, abs=0.05), 96 * 64)


def test_windows_are_read_together_as_far_as_memory_goes():
    windows = cut(Clip("a.mp4", 1, 2, pixels=640 * 360), 100.0, 10.0)
    assert list(map(len, read_together(windows, most=4, num_frames=12))) == [4, 4, 2]
    assert list(
        map(len, read_together([*windows[:3], Clip("b.mp4", 1, 2), Clip("c.mp4", 1, 2)], 16, 12))
    ) == [
        3,
        1,
        1,
    ]
    large = cut(Clip("a.mp4", 1, 2, pixels=3840 * 2160), 100.0, 10.0)
    reads = read_together(large, most=16, num_frames=12)
    assert [i for read in reads for i in read] == list(range(10))
    assert all(len(read) == 1 or len(read) * 12 * 3 * 3840 * 2160 <= clips.READ_BYTES for read in reads)


def test_a_long_video_is_opened_for_many_windows_at_once(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", seed=0, frames=40)
    windows, _ = find_clips([str(tmp_path / "a.mp4")], 0.5)
    opened, read_frames = [], clips.read_frames

    def read_but_frame_17(path, choose, **options):
        opened.append(path)
        frames, indices, vlen = read_frames(path, choose, **options)
        if 17 in indices:
            raise VideoReadError(path, "frame 17 is damaged")
        return frames, indices, vlen

    monkeypatch.setattr(clips, "read_frames", read_but_frame_17)
    dataset = ClipDataset(windows, range(8), 12, 32, "pyav", None, most=8)
    assert [len(dataset), len(windows), windows[3].span(40)] == [1, 8, (15, 20)]
    items = dataset[0]
    assert [item["index"] for item in items] == list(range(8))
    assert [(i, item["missing"].reason) for i, item in enumerate(items) if "missing" in item] == [
        (3, "frame 17 is damaged")
    ]
    assert len(opened) == 7  # of 8, 4, 2, 2, 1, 1 and 4 windows
    alone = ClipDataset(windows, range(8), 12, 32, "pyav", None)
    assert all((alone[row][0]["video"] == items[row]["video"]).all() for row in range(8) if row != 3)


def test_a_file_that_timed_out_is_not_tried_again_for_its_parts(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", seed=0, frames=40)
    windows, _ = find_clips([str(tmp_path / "a.mp4")], 0.5)
    opened = []

    def give_up(path, choose, **options):
        opened.append(path)
        raise VideoReadTimeout(path, "not read within 1 s, given up")

    monkeypatch.setattr(clips, "read_frames", give_up)
    items = ClipDataset(windows, range(8), 12, 32, "pyav", 1.0, most=8)[0]
    assert [item["missing"].reason for item in items] == ["not read within 1 s, given up"] * 8
    assert len(opened) == 1
