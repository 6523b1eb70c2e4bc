import json

import numpy as np
import pytest

from data_loader import build_dataset
from data_loader.sampling import clip_times, draw_segment
from tests.data_loader import worlds
from tests.data_loader.worlds import SIZE, options


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.yttemporal(tmp_path_factory.mktemp("yt"))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_item_has_four_texts_in_time_order(world, split):
    dataset = build_dataset("YT-Temporal", split, mask_ratio=0.5, num_patches=4, **options(world))
    item = dataset[(3, 1)]
    assert item["video"].shape == (12, 3, SIZE, SIZE)
    assert item["valid_frames"] == 12
    assert item["id"] == f"subset_87/data/{'train' if split == 'train' else 'val'}1.mp4"
    assert len(item["text"]) == 4
    spoken = [int(word.removeprefix("v1w")) for text in item["text"] for word in text.split()]
    assert spoken == sorted(spoken)
    assert ("keep_ind" in item) == (split != "test")


def test_the_texts_are_the_words_inside_each_clip(world, monkeypatch):
    monkeypatch.setattr("data_loader.dataset.draw_segment", lambda *_: (2.5, 17.5))
    item = build_dataset("yttemporal", "train", **options(world))[0]
    # clips of 3 s from 2.5, 6.5, 10.5 and 14.5 s on; word k is said at 0.25 + k / 2 s
    for clip, text in enumerate(item["text"]):
        first = 5 + 8 * clip
        assert text.split() == [f"v0w{k}" for k in range(first, first + 6)]


def test_segments_follow_the_rule():
    rng = np.random.default_rng(0)
    drawn = [draw_segment(60, 4, rng) for _ in range(2000)]
    lengths = {round(end - start) for start, end in drawn if end < 59}
    assert lengths == {15, 19, 23}
    assert min(start for start, _ in drawn) < 1
    assert max(end for _, end in drawn) == 59
    assert all(0 <= start < end <= 59 for start, end in drawn)


@pytest.mark.parametrize("duration", [2, 5, 12, 15])
def test_a_short_video_is_taken_whole_but_for_its_last_second(duration):
    rng = np.random.default_rng(0)
    assert {draw_segment(duration, 4, rng) for _ in range(20)} == {(0.0, duration - 1.0)}


def test_clips_have_a_second_between_them_where_there_is_time():
    assert clip_times(10, 25, 4) == [(10, 13), (14, 17), (18, 21), (22, 25)]
    assert clip_times(0, 11, 4) == [(0, 2), (3, 5), (6, 8), (9, 11)]
    assert clip_times(0, 2, 4) == [(0, 0.5), (0.5, 1), (1, 1.5), (1.5, 2)]


def test_silence_is_an_empty_text(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    path = world / "data/videos/subset_87/annotations/train0.json"
    worlds.put_json(path, worlds.transcript(["only", "two"], 12))
    item = build_dataset("yttemporal", "train", **options(world))[0]
    assert item["text"] == ["only two", "", "", ""]
    assert item["failures"] == []


@pytest.mark.parametrize(
    "content", ["", '{"subtitles": []}', None, json.dumps(worlds.transcript(["a"], 0)), "[]"]
)
def test_a_video_without_a_usable_transcript_is_replaced(world, tmp_path, content):
    world = worlds.copy_world(world, tmp_path)
    path = world / "data/videos/subset_87/annotations/train0.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    item = build_dataset("yttemporal", "train", **options(world))[0]
    [(file, reason)] = item["failures"]
    assert file == str(path)
    assert reason.startswith("transcript: ")


def test_what_was_mended_is_passed_on(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    transcript = worlds.transcript(["a", "b"])
    transcript["subtitles"].reverse()
    worlds.put_json(world / "data/videos/subset_87/annotations/train0.json", transcript)
    item = build_dataset("yttemporal", "train", **options(world))[0]
    assert item["problems"] == ("times out of order",)


def test_cached_transcripts_change_no_sample(world, tmp_path):
    plain = build_dataset("yttemporal", "train", **options(world))
    cached = build_dataset("yttemporal", "train", transcript_cache=str(tmp_path / "cache"), **options(world))
    for _ in range(2):
        assert cached[(1, 2)]["text"] == plain[(1, 2)]["text"]
    assert any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_a_list_without_the_column_or_the_videos_is_named(world, tmp_path):
    world = worlds.copy_world(world, tmp_path)
    (world / "data/videos").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="the videos of YT-Temporal"):
        build_dataset("yttemporal", "train", **options(world))
    worlds.put_table(world / "meta_data/yttemporal_train.csv", [["a"]], ["name"])
    with pytest.raises(ValueError, match=r"yttemporal_train\.csv has no column 'Name'"):
        build_dataset("yttemporal", "train", **options(world))
    worlds.put_table(world / "meta_data/yttemporal_train.csv", [], ["Name"])
    with pytest.raises(ValueError, match="is empty: expected"):
        build_dataset("yttemporal", "train", **options(world))
