"""From PyAV's frames to pixels: 8-bit RGB, upright, all of one size."""

from collections.abc import Sequence

import av
import numpy as np
from av.buffer import Buffer
from av.video.reformatter import VideoReformatter


class RGB:
    """Turns the frames of one video, of any pixel format, into 8-bit RGB [H, W, 3] as large as the first.

    One converter for all frames, on one thread: a converter for each, with as many threads as the machine has
    cores, takes several times as long for the same pixels.
    """

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()
        self.size: tuple[int, int] | None = None

    def see(self, frame: av.VideoFrame) -> None:
        """Let a frame set the size if it is the first."""
        self.size = self.size or (frame.width, frame.height)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """The pixels, scaled to the first frame's size where it changes, then turned as the file asks."""
        width, height = self.size = self.size or (frame.width, frame.height)
        rgb = self.reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return upright(rgb.to_ndarray(), frame)


class Clip:
    """The frames of some indices, as they come: uint8 [len(indices), H, W, 3], taken once from memory."""

    def __init__(self, indices: Sequence[int]):
        self.rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            self.rows.setdefault(index, []).append(row)
        self.rgb = RGB()
        self.pixels: np.ndarray | None = None
        self.missing = set(self.rows)

    def add(self, index: int, frame: av.VideoFrame) -> None:
        """Takes a frame, if it is one of those wanted."""
        self.rgb.see(frame)
        if index not in self.rows:
            return
        pixels = self.rgb(frame)
        if self.pixels is None:
            self.pixels = np.empty((sum(map(len, self.rows.values())), *pixels.shape), np.uint8)
        for row in self.rows[index]:
            self.pixels[row] = pixels
        self.missing.discard(index)


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """The pixels [H, W, 3] of a frame as its display matrix wants them shown: in quarter turns, and mirrored.

    Of the eight orientations without scaling four are mirrored: selfie cameras write those. Other angles
    become the nearest of the eight.
    """
    matrix = display_matrix(frame)
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):  # x becomes y
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def is_mirrored(frame: av.VideoFrame) -> bool:
    """Whether the display matrix of a frame mirrors it, which a rotation alone cannot do."""
    a, b, c, d = display_matrix(frame) or (1, 0, 0, 1)
    return a * d - b * c < 0


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d): the pixel (x, y) is shown at (ax + cy, bx + dy) (ISO/IEC 14496-12, 8.3.2)."""
    stored = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(stored, Buffer):
        return None
    (a, b), (c, d) = np.frombuffer(bytes(stored), np.int32).reshape(3, 3)[:2, :2].tolist()
    return a, b, c, d
