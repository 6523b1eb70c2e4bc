"""Spans of videos: how they are written, read from lists, and used for clips and sliding windows."""

import math

import numpy as np
import pytest

from data_loader.dataset import VideoDataset
from data_loader.records import CaptionRecords
from data_loader.sampling import sample_frames
from data_loader.spans import Span, following_spans, parse_seconds, read_spans
from data_loader.video import VideoReadError
from downstream.embedding.windows import SlidingWindows

from . import video_files as files


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("62.5", 62.5),
        (" 7 ", 7.0),
        ("00:01:02.5", 62.5),
        ("1:02:03", 3723.0),
        ("90:30", 5430.0),
        (3, 3.0),
        (0.25, 0.25),
        ("1e2", 100.0),
        ("", None),
        (None, None),
    ],
)
def test_times_of_lists(written, seconds):
    assert parse_seconds(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "nan",
        math.nan,
        math.inf,
        "inf",
        "-1",
        -1.0,
        pytest.param(10**400, id="huge"),
        "1:60",
        "1:60:00",
        "x",
        True,
        [1],
    ],
)
def test_what_is_no_time(written):
    with pytest.raises(ValueError, match=r"is no time: write seconds \(62\.5\) or hours"):
        parse_seconds(written)


def test_spans_of_a_list():
    spans = read_spans(["", "1", "0:02"], [None, "2.5", ""], lambda row: f"line {row}")
    assert spans.tolist() == [[0, math.inf], [1, 2.5], [2, math.inf]]
    assert read_spans(None, [3.0], str).tolist() == [[0, 3]]
    for starts, ends in ((["1", "5"], ["2", "5"]), (["1", "5"], ["2", "4"])):
        with pytest.raises(ValueError, match=r"line 1: the span 5 s to [45] s does not end after its start"):
            read_spans(starts, ends, lambda row: f"line {row}")
    with pytest.raises(ValueError, match="line 0: nan is no time"):
        read_spans([math.nan], [1.0], lambda row: f"line {row}")


def test_a_span_must_lie_in_its_video():
    assert Span(0, 10).fault(10) == Span(9.5, 10.9).fault(10) == Span(3).fault(10) == ""
    assert Span(10, 12).fault(10) == "the span 10 s to 12 s lies outside the video, which lasts 10 s"
    assert "the span 2 s to 12 s lies outside" in Span(2, 12).fault(10)
    assert "the span 10 s to the end lies outside" in Span(10).fault(10)


@pytest.fixture
def records(tmp_path):
    """One video of 40 frames at 25 a second: its second quarter, and what lies behind it."""
    files.write_video(tmp_path / "a.mp4")
    records = CaptionRecords(tmp_path, ["a.mp4", "a.mp4"], ["one", "two"], join=False)
    records.spans = np.array([[0.4, 0.8], [3.0, 4.0]])
    return records


def test_a_record_with_a_span_gives_frames_of_the_span_alone(records):
    assert records[0].span == records.span(0) == Span(0.4, 0.8) and records[0].captions == ["one"]
    item = VideoDataset(records, num_frames=5, image_size=40)[0]
    assert files.frame_numbers(item["video"]) == [10 + i for i in sample_frames(5, 10)]
    training = VideoDataset(records, "val", num_frames=5, image_size=40)
    for epoch in range(5):
        numbers = files.frame_numbers(training[epoch, 0]["video"])
        assert numbers == sorted(numbers) and set(numbers) <= set(range(10, 20))
    with pytest.raises(VideoReadError, match=r"a\.mp4: the span 3 s to 4 s lies outside the video"):
        VideoDataset(records)[1]


def test_sliding_windows_of_a_span(records):
    windows = SlidingWindows(VideoDataset(records, num_frames=3, image_size=40), 1)
    numbers = [files.frame_numbers(window) for window in windows[0]["video"]]
    assert numbers == [[10 + i for i in sample_frames(3, 10, shift=shift)] for shift in range(2)]
    assert "lies outside the video" in windows[1]["missing"].reason


@pytest.mark.parametrize(
    ("spans", "number", "runs"),
    [
        ([[0, 1], [1, 2], [5, 6]], 2, [[0, 1], [1, 2]]),
        ([[0, 1], [1, 2], [5, 6]], 3, [[0, 1, 2]]),
        ([[0, 1], [1, 2], [5, 6]], 4, []),
        ([[0, 3], [1, 2], [2, 4], [4, 5]], 2, [[0, 3], [1, 2], [2, 3]]),  # 1 and 2 overlap with 0
        ([[0, 1.05], [1, math.inf]], 2, [[0, 1]]),  # overlap by rounding
        ([[0, math.inf], [1, 2]], 2, []),
        ([[0, 0.01], [0.02, 0.03]], 2, [[0, 1]]),
        ([[3, 4]], 1, [[0]]),
    ],
)
def test_spans_that_follow_one_another(spans, number, runs):
    assert following_spans(np.array(spans, float), number).tolist() == runs
