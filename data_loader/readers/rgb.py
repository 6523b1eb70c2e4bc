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
        pixels = rgb.to_ndarray()
        quarters = round(frame.rotation / 90) % 4
        return np.rot90(pixels, quarters) if quarters else pixels


def stacked(frames: Mapping[int, np.ndarray], indices: Sequence[int]) -> np.ndarray:
    """Frames by index -> uint8 [T, H, W, 3], in the order of `indices`, as often as each is named."""
    return np.stack([frames[i] for i in indices])
