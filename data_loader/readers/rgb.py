"""From PyAV's frames to pixels."""

from collections.abc import Mapping, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter


class RGB:
    """Turns the frames of one video, of any pixel format, into 8-bit RGB [H, W, 3] as large as the first.

    One converter for all frames, on one thread: a converter for each, with as many threads as the machine has
    cores, takes several times as long for the same pixels.
    """

    def __init__(self):
        self.reformatter = VideoReformatter()
        self.size: tuple[int, int] | None = None

    def see(self, frame: av.VideoFrame) -> None:
        """Let a frame set the size if it is the first."""
        self.size = self.size or (frame.width, frame.height)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """The pixels, scaled to the first frame's size where it changes, then turned as the file asks."""
        self.see(frame)
        width, height = self.size
        rgb = self.reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return upright(rgb.to_ndarray(), frame)


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """The pixels [H, W, 3] of a frame as its display matrix wants them shown: in quarter turns, and mirrored.

    The matrix (ISO/IEC 14496-12, 8.3.2) sends the pixel (x, y) to (ax + cy, bx + dy). Four of its eight
    orientations are mirrored: selfie cameras write those. Other angles become the nearest of the eight.
    """
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return pixels
    (a, b), (c, d) = np.frombuffer(bytes(stored), np.int32).reshape(3, 3)[:2, :2].tolist()
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):  # x becomes y
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def stacked(frames: Mapping[int, np.ndarray], indices: Sequence[int]) -> np.ndarray:
    """Frames by index -> uint8 [T, H, W, 3], in the order of `indices`, as often as each is named."""
    return np.stack([frames[i] for i in indices])
