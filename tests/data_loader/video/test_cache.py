"""The cache of decoded videos: the same frames, within its limit."""

import pickle

import numpy as np
import pytest
import torch

from data_loader import video
from data_loader.video import FrameCache, read_clip, read_frames
from tests.data_loader import video_files as files

VIDEO_BYTES = 40 * 96 * 64 * 3


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [files.write_video(folder / f"{k}.mp4") for k in range(3)]


@pytest.fixture
def reads(monkeypatch):
    """The files that were opened."""
    reads, plain = [], video.open_local
    monkeypatch.setattr(video, "open_local", lambda path, *rest: reads.append(path) or plain(path, *rest))
    return reads


def test_a_video_is_decoded_once(videos, reads):
    cache = FrameCache(10 * VIDEO_BYTES)
    for _ in range(3):
        for path in videos:
            cached, plain = read_clip(path, 12, cache=cache), read_clip(path, 12)
            assert torch.equal(cached[0], plain[0]) and cached[1:] == plain[1:]
    assert len(reads) == 3 + 9  # once each through the cache, thrice each without
    assert len(cache) == 3 and cache.bytes == 3 * VIDEO_BYTES


def test_random_draws_are_the_same_with_and_without(videos):
    cache, rngs = FrameCache(10 * VIDEO_BYTES), [np.random.default_rng(0), np.random.default_rng(0)]
    for _ in range(3):
        cached = read_clip(videos[0], 12, "rand", rng=rngs[0], cache=cache)
        plain = read_clip(videos[0], 12, "rand", rng=rngs[1])
        assert cached[1] == plain[1] and torch.equal(cached[0], plain[0])


def test_when_full_nothing_is_added_and_nothing_lost(videos, reads):
    cache = FrameCache(int(1.5 * VIDEO_BYTES))
    for _ in range(2):
        for path in videos:
            frames, indices, vlen = read_clip(path, 12, cache=cache)
            assert files.frame_numbers(frames) == indices and vlen == 40
    assert cache.full and len(cache) == 1 and cache.bytes == VIDEO_BYTES
    assert len(reads) == 3 + 2


def test_a_caller_may_change_its_frames(videos):
    cache = FrameCache(10 * VIDEO_BYTES)
    for _ in range(2):
        frames, indices, _ = read_clip(videos[0], 12, cache=cache)
        assert files.frame_numbers(frames) == indices
        frames.zero_()


def test_long_videos_are_read_as_ever(videos):
    cache, asked = FrameCache(10 * VIDEO_BYTES, max_frames=39), []
    frames, indices, _ = read_frames(videos[0], lambda video: asked.append(len(video)) or [5], cache=cache)
    assert files.frame_numbers(frames) == indices == [5]
    assert asked == [40] and len(cache) == 0 and not cache.full


def test_a_changed_file_is_read_anew(tmp_path, reads):
    cache, path = FrameCache(10 * VIDEO_BYTES), tmp_path / "video.mp4"
    files.write_video(path, 20)
    assert read_clip(path, 12, cache=cache)[2] == 20
    files.write_video(path, 30)
    assert read_clip(path, 12, cache=cache)[2] == 30
    assert len(reads) == 2


def test_works_under_a_time_limit_too(videos):
    cache = FrameCache(10 * VIDEO_BYTES)
    for _ in range(2):
        frames, indices, _ = read_clip(videos[0], 12, timeout=120, cache=cache)
        assert files.frame_numbers(frames) == indices
    assert len(cache) == 1


def test_another_process_starts_with_an_empty_one(videos):
    cache = FrameCache(10 * VIDEO_BYTES, max_frames=99)
    read_clip(videos[0], 12, cache=cache)
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301
    assert len(copy) == 0 and copy.bytes == 0
    assert (copy.max_bytes, copy.max_frames) == (cache.max_bytes, 99)
    assert FrameCache(0).full
