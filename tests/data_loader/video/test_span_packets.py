"""Spans of videos are opened at their place, and give the frames that the whole file gives."""

import math

import numpy as np
import pytest

from data_loader.spans import Span
from data_loader.video import open_video, read_open
from data_loader.video.base import FrameCountChanged
from data_loader.video.pyav_reader import PyAVVideo
from tests.data_loader import video_files as files
from tests.data_loader.video_kinds import GOOD

SPANS = [
    (0, 0.1),
    (0, math.inf),
    (0.39, 0.8),
    (0.5, 0.501),
    (0.65, 1.3),
    (1.21, 1.6),
    (1.5, 1.9),
    (1.0, math.inf),
]


def frames_of(video, span):
    """The frames of a span of an open video and when they are shown; None where it is none of the video."""
    span, found = Span(*span), {}

    def choose(video):
        found["fault"] = bool(span.fault(video.duration))
        frames = range(1) if found["fault"] else span.frames(video.times)
        found["times"] = video.times[frames.start : frames.stop]
        return frames

    pixels = read_open(video, choose)[0]
    return None if found["fault"] else (pixels, found["times"])


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("name", GOOD)
def test_a_span_has_the_frames_that_the_whole_file_has(make, name, timeout):
    for span in SPANS if timeout is None else SPANS[4:5]:
        with open_video(make(name)) as whole, open_video(make(name), timeout=timeout, span=span) as video:
            expected, found = frames_of(whole, span), frames_of(video, span)
        assert (found is None) == (expected is None), span
        if expected is not None:
            assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1]), span


def test_a_span_with_another_description_than_the_start_takes_the_whole_file(make, monkeypatch):
    monkeypatch.setattr("data_loader.video.span_packets.REORDERED", 3)
    with PyAVVideo(str(make("two_descriptions.mp4")), (1.2, 1.4)) as video:
        assert not video.of_span and len(video) == 40


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    return files.write_video(tmp_path_factory.mktemp("long") / "a.mp4", 64, options={"g": "8"}, b_frames=2)


def test_what_lies_before_and_far_behind_is_not_read(long_video, monkeypatch):
    monkeypatch.setattr("data_loader.video.span_packets.REORDERED", 3)
    with PyAVVideo(str(long_video), (1.0, 1.2)) as video:
        assert video.of_span and video.times[0] == 24 / 25 and len(video) < 16
        assert video.times[-1] >= 1.2 and video.duration < 64 / 25
        numbers = files.frame_numbers(np.moveaxis(video.read([1, 5]), 3, 1))
        assert numbers == [25, 29]
    with PyAVVideo(str(long_video), (2.0, 2.5)) as video:
        assert video.of_span and video.duration == pytest.approx(64 / 25)


def test_too_large_a_span_takes_the_whole_file(long_video, monkeypatch):
    monkeypatch.setattr("data_loader.video.span_packets.KEPT_BYTES", 10)
    with PyAVVideo(str(long_video), (1.0, 1.2)) as video:
        assert not video.of_span and len(video) == 64


def test_where_a_span_misleads_the_whole_file_is_listed(long_video, monkeypatch):
    with PyAVVideo(str(long_video), (1.0, 1.2)) as video:
        monkeypatch.setattr(PyAVVideo, "_read_groups", lambda *_: False)
        with pytest.raises(FrameCountChanged):
            video.read([0])
        monkeypatch.undo()
        assert not video.of_span and len(video) == 64
        assert files.frame_numbers(np.moveaxis(video.read([30]), 3, 1)) == [30]


def test_a_span_behind_the_end(long_video):
    with open_video(long_video, span=(10, 11)) as video:
        assert "lasts 2.56 s" in Span(10, 11).fault(video.duration)
