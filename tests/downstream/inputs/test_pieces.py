"""How videos are cut into pieces, and which frames of these the model sees."""

import math

import numpy as np
import pytest

from data_loader.failures import Failure
from data_loader.spans import Span
from data_loader.transforms import feature_transform
from data_loader.video import open_video
from downstream.embedding.clips import Clip, ClipDataset
from downstream.inputs.pieces import Cutting, cut, find_clips
from tests.data_loader import video_files as files


def windows(length: float, window: float, stride: float | None = None, start: float = 0.0, rate: int = 25):
    """[(start, end)] of the windows of a piece in a video that goes on behind it."""
    times = np.arange(math.ceil((start + length + 5) * rate)) / rate
    spans = cut(Span(start, start + length), times, window, stride)
    return [(span.start, pytest.approx(span.end)) for span in spans]


def test_windows_cover_a_piece_without_crumbs():
    assert windows(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert windows(8.3, 4) == [(0, 4), (4, 8.3)]
    assert windows(10, 60) == [(0, 10)]
    assert windows(10, 4, start=3.0) == [(3, 7), (7, 11), (11, 13)]


def test_windows_that_overlap_end_with_the_first_that_comes_to_the_end():
    assert windows(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert windows(11, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10), (8, 11)]
    assert windows(10.3, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10.3)]
    assert windows(3, 4, 2) == [(0, 3)]


def test_windows_with_gaps():
    assert windows(25, 2, 10) == [(0, 2), (10, 12), (20, 22)]
    assert windows(21, 2, 10) == [(0, 2), (10, 12), (20, 21)]
    assert windows(20.1, 2, 10) == [(0, 2), (10, 12)]  # a crumb of a window is none
    assert windows(22.1, 2, 10) == [(0, 2), (10, 12), (20, 22.1)]


@pytest.mark.parametrize("stride", [0.7, 1.0, 1.3, 2.0, 3.1])
@pytest.mark.parametrize("length", [0.3, 2.01, 7.9, 10.01])
def test_windows_against_a_plain_rule(stride, length):
    expected, k = [], 0
    while k == 0 or k * stride < length - 0.2:
        end = k * stride + 2.0
        expected.append((k * stride, pytest.approx(length if end > length - 0.2 else end)))
        if end > length - 0.2:
            break
        k += 1
    assert windows(length, 2.0, stride, rate=100) == expected


def test_what_the_options_ask_for():
    assert Cutting.of(12, None, None, None, None) == Cutting(12)
    assert Cutting.of(12, 10.0, None, 4, None) == Cutting(4, 10.0, 10.0)
    assert Cutting.of(12, None, None, None, 4.0) == Cutting(12, 3.0, 3.0, 4.0)
    assert Cutting.of(12, None, 1.0, 8, 4.0) == Cutting(8, 2.0, 1.0, 4.0)
    assert Cutting.of(12, 2.5, None, None, 3.0) == Cutting(8, 2.5, 2.5, 3.0)
    for given, message in (
        ((12, None, None, 13, None), "--frames 13: this model takes 1 to 12 frames"),
        ((12, None, None, 0, None), "--frames 0"),
        ((12, 10.0, None, None, 4.0), r"has 40 frames at 4 a second, not 12: take --fps 1\.2, or"),
        ((12, 2.0, None, 3, 4.0), "has 8 frames at 4 a second, not 3"),
        ((12, None, 2.0, None, None), "--stride is the time between two windows: give --window"),
    ):
        with pytest.raises(ValueError, match=message):
            Cutting.of(*given)


def numbers(path, clips, cutting):
    dataset = ClipDataset(clips, range(len(clips)), cutting, feature_transform(48), most=16)
    items = [item for read in range(len(dataset)) for item in dataset[read]]
    return [files.frame_numbers(item["video"]) for item in items]


def test_frames_at_a_rate(tmp_path):
    """1.6 s of 25 frames a second, then with a variable rate: the frames that are shown at those times."""
    path = files.write_video(tmp_path / "a.mp4")
    cutting = Cutting.of(12, None, None, 4, 5.0)
    clips, _ = find_clips([Clip(str(path))], cutting)
    assert [(clip.span.start, clip.span.end) for clip in clips] == [(0, 0.8), (0.8, pytest.approx(1.6))]
    assert numbers(path, clips, cutting) == [[0, 5, 10, 15], [20, 25, 30, 35]]
    cutting = Cutting.of(12, None, None, 12, 10.0)  # the last window has four frames, and repeats its last
    clips, _ = find_clips([Clip(str(path))], cutting)
    assert numbers(path, clips, cutting)[1] == [30, 32, 35, 37, *[39] * 8]
    slow = files.write_video(tmp_path / "vfr.mp4", 5, times=[0, 1000, 1100, 1200, 3000])
    cutting = Cutting.of(12, 2.0, None, None, 2.0)
    clips, _ = find_clips([Clip(str(slow))], cutting)
    assert numbers(slow, clips, cutting) == [[0, 0, 1, 3], [4, 4, 4, 4]]


def test_fewer_frames_of_whole_videos(tmp_path):
    path = files.write_video(tmp_path / "a.mp4")
    cutting = Cutting.of(12, None, None, 1, None)
    assert numbers(path, [Clip(str(path))], cutting) == [[0]]


def test_spans_and_the_windows_of_them(tmp_path):
    path = str(files.write_video(tmp_path / "a.mp4"))
    gone = str(tmp_path / "gone.mp4")
    wanted = [
        Clip(path, span=Span(0.4, 1.2), row=0, where="list, line 2"),
        Clip(gone, span=Span(0.0, math.inf), row=1, where="list, line 3"),
        Clip(path, span=Span(0.8, math.inf), row=2, where="list, line 4"),
        Clip(path, span=Span(5.0, 6.0), row=3, where="list, line 5"),
    ]
    outside = Failure(path, "list, line 5: the span 5 s to 6 s lies outside the video, which lasts 1.6 s")
    clips, failures = find_clips(wanted, Cutting(12))
    assert [(clip.row, clip.span.start, pytest.approx(clip.span.end)) for clip in clips] == [
        (0, 0.4, 1.2),
        (2, 0.8, 1.6),
    ]
    assert set(failures) == {Failure(gone, "no such file"), outside}
    assert numbers(path, clips, Cutting(4)) == [[10, 16, 22, 29], [20, 26, 32, 39]]
    pieces, _ = find_clips(wanted, Cutting(12, window=0.5))
    assert [(clip.row, clip.span.start, pytest.approx(clip.span.end)) for clip in pieces] == [
        (0, 0.4, 0.9),
        (0, 0.9, 1.2),
        (2, 0.8, 1.3),
        (2, 1.3, 1.6),
    ]
    # Where no file need be opened beforehand, a span outside is found when it is read, and costs itself.
    clips, failures = find_clips([wanted[0], wanted[3]], Cutting(12))
    assert failures == [] and clips[0].duration is None
    bad, good = sorted(
        ClipDataset(clips, [0, 1], Cutting(12), feature_transform(48), most=16)[0],
        key=lambda item: "video" in item,
    )
    assert (bad["index"], bad["missing"], good["index"]) == (1, outside, 0)
    with open_video(path) as video:
        assert good["metadata"] == {"duration": video.duration, "num_frames": 40}
