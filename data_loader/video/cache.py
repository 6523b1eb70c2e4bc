"""Decoded videos kept in memory, for small data sets that are read again and again."""

from collections.abc import Sequence

import numpy as np

from .base import Video


class DecodedVideo(Video):
    """A whole video in memory, uint8 [len, H, W, 3]."""

    def __init__(self, video: Video, frames: np.ndarray):
        self.frames = np.ascontiguousarray(frames)
        self.path, self.times, self.duration, self.lost = video.path, video.times, video.duration, video.lost

    def read(self, indices: Sequence[int]) -> np.ndarray:
        return self.frames[list(indices)]


class FrameCache:
    """Whole videos, decoded, as long as they fit into `max_bytes`. Each process has its own.

    Nothing is ever thrown out: in a data set read in random order, what leaves would soon be wanted again.
    Once a video has not fitted, no more are added. Videos of over `max_frames` frames are never kept.
    """

    def __init__(self, max_bytes: int, max_frames: int = 512):
        self.max_bytes, self.max_frames = max_bytes, max_frames
        self.bytes = 0
        self.full = max_bytes <= 0
        self.videos: dict[object, DecodedVideo] = {}

    def __len__(self) -> int:
        return len(self.videos)

    def __reduce__(self) -> tuple[type["FrameCache"], tuple[int, int]]:
        """A copy for another process starts empty."""
        return FrameCache, (self.max_bytes, self.max_frames)

    def get(self, key: object) -> DecodedVideo | None:
        return self.videos.get(key)

    def wants(self, video: Video) -> bool:
        """Whether a video is worth decoding whole."""
        return not self.full and len(video) <= self.max_frames

    def add(self, key: object, video: DecodedVideo) -> None:
        """Keeps a video, if it fits."""
        self.full |= self.bytes + video.frames.nbytes > self.max_bytes
        if not self.full and key not in self.videos:
            self.videos[key] = video
            self.bytes += video.frames.nbytes
