"""The pictures of pages: which frames they show, and in which order."""

import base64
import io
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from data_loader.video import read_frames
from downstream.report.pages import GAP, Picture, thumbnails
from downstream.search import Hit

from ..layouts import write_video


def shown(picture: Picture) -> np.ndarray:
    """The picture [H, W, 3] as a page has it."""
    data = thumbnails({"it": picture}).uris["it"].removeprefix("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


@pytest.mark.parametrize(
    ("start", "end", "frames"), [(None, None, (10, 30, 50)), (3.0, 6.0, (35, 45, 55)), (0.0, 0.1, (0, 0, 0))]
)
def test_a_strip_is_three_frames_in_their_order(start, end, frames, tmp_path):
    """Of a video, or of a window of it."""
    path = write_video(tmp_path / "a.mp4", seed=3, frames=60)
    strip = shown(Hit(str(path), 0.5, start, end, 6.0).picture)
    expected, _, _ = read_frames(path, lambda video: list(frames), reader="pyav")
    assert strip.shape == (48, 3 * 64 + 2 * GAP, 3)
    for i, frame in enumerate(expected.permute(0, 2, 3, 1).numpy().astype(int)):
        part = strip[:, i * (64 + GAP) :][:, :64]
        distances = [
            np.abs(part - other).mean() for other in expected.permute(0, 2, 3, 1).numpy().astype(int)
        ]
        assert np.abs(part - frame).mean() == min(distances) < 12


def test_links_of_files_elsewhere():
    assert Hit("https://host/a b.mp4", 0.5, 2.0, 3.5).link == "https://host/a b.mp4#t=2,3.5"
    assert Hit("/films/a b.mp4", 0.5).link == "file:///films/a%20b.mp4"
    assert Hit("javascript://%0aalert(1)", 0.5).link.startswith("file:///")


def test_large_frames_are_made_small(tmp_path):
    path = write_video(tmp_path / "tall.mp4", seed=0, frames=3, size=(480, 240))
    assert shown(Picture(lambda: nullcontext(path))).shape == (72, 3 * 36 + 2 * GAP, 3)
    assert shown(Picture(lambda: nullcontext(path), (0.5,))).shape == (72, 36, 3)
