"""Decoded videos kept in memory, for small data sets that are read again and again."""

import numpy as np


class FrameCache:
    """Whole videos, decoded, as long as they fit into `max_bytes`. Each process has its own.

    Nothing is ever thrown out: in a data set read in random order, what leaves would soon be wanted again.
    Once a video has not fitted, no more are added. Videos of over `max_frames` frames are never kept.
    """

    def __init__(self, max_bytes: int, max_frames: int = 512):
        self.max_bytes, self.max_frames = max_bytes, max_frames
        self.bytes = 0
        self.full = max_bytes <= 0
        self.videos: dict[object, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.videos)

    def __reduce__(self):
        """A copy for another process starts empty."""
        return FrameCache, (self.max_bytes, self.max_frames)

    def get(self, key: object) -> np.ndarray | None:
        """All frames of a video, uint8 [vlen, H, W, 3], or None."""
        return self.videos.get(key)

    def wants(self, vlen: int) -> bool:
        """Whether a video of so many frames is worth decoding whole."""
        return not self.full and vlen <= self.max_frames

    def add(self, key: object, frames: np.ndarray) -> None:
        """Keeps all frames of a video, if they fit."""
        self.full |= self.bytes + frames.nbytes > self.max_bytes
        if not self.full and key not in self.videos:
            self.videos[key] = np.ascontiguousarray(frames)
            self.bytes += frames.nbytes
