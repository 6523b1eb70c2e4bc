"""Shots as PySceneDetect finds them, at the times of our reader."""

import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from data_loader.video import open_video
from downstream.embedding.clips import Clip
from downstream.inputs.pieces import Cutting, find_clips
from downstream.inputs.shots import find_shots, import_scenedetect
from tests.extras import extra

extra("scenedetect")

COLOURS = ((200, 30, 30), (20, 160, 40), (240, 240, 240))


def write_shots(path, frames: int = 25, gap_ms: int = 40):
    """Three shots of as many frames, each of one colour with a square that moves."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(3 * frames):
            picture = np.full((240, 320, 3), COLOURS[i // frames], np.uint8)
            picture[100:140, 5 * (i % frames) : 5 * (i % frames) + 40] = 120
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (
                gap_ms * i + (500 if i >= frames else 0),
                stream.codec_context.time_base,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_shots_begin_where_the_picture_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("downstream.inputs.shots.CHUNK_BYTES", 7 * 320 * 240 * 3)  # seven frames at once
    path = write_shots(tmp_path / "a.mp4")
    with open_video(path) as video:
        shots = find_shots(video)
        assert [(s.start, s.end) for s in shots] == [
            (0, pytest.approx(1.5)),  # the first picture of the second shot comes half a second late
            (pytest.approx(1.5), pytest.approx(2.5)),
            (pytest.approx(2.5), video.duration),
        ]
        assert [s.frames(video.times) for s in shots] == [range(25), range(25, 50), range(50, 75)]


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_shots_are_clips_and_can_be_cut_into_windows(tmp_path, timeout):
    path = write_shots(tmp_path / "a.mp4")
    whole, failures = find_clips([Clip(str(path))], Cutting(12, shots=True, timeout=timeout))
    assert [clip.span.start for clip in whole] == [
        0,
        pytest.approx(1.5),
        pytest.approx(2.5),
    ] and failures == []
    windows, _ = find_clips([Clip(str(path))], Cutting(12, window=0.6, shots=True))
    starts = [clip.span.start for clip in windows]
    assert starts == pytest.approx([0, 0.6, 1.5, 2.1, 2.5, 3.1])


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(ValueError, match="--shots needs the package scenedetect: pip install scenedetect"):
        import_scenedetect()
