"""Shots: where the picture of a video changes at once, found with PySceneDetect."""

from functools import partial
from itertools import pairwise
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

from data_loader.spans import Span
from data_loader.video import Video, read_open

WIDTH = 256  # pixels, about, of the pictures that are compared, as in PySceneDetect's own command
FIRST = 12  # frames, before it is known how large they are
CHUNK_BYTES = 2**28  # of frames as they come from the file, at once


def import_scenedetect() -> ModuleType:
    """Raises ValueError with what to install."""
    try:
        import scenedetect
    except ImportError as error:
        raise ValueError("--shots needs the package scenedetect: pip install scenedetect") from error
    return scenedetect


def find_shots(video: Video) -> list[Span]:
    """The shots of an open video, which lie side by side, by PySceneDetect's ContentDetector as it is.

    All frames are read; the times of cuts are those of our reader, whatever the frame rate. Raises
    VideoReadError, ValueError where the package is missing.
    """
    scenedetect = import_scenedetect()
    detector = scenedetect.ContentDetector()
    rate = len(video) / video.duration
    cuts: list[int] = []
    chunk = range(FIRST)
    while chunk.start < len(video):
        frames, indices, _ = read_open(video, partial(frames_in, chunk))
        for index, picture in zip(indices, small_pictures(frames), strict=True):
            found = detector.process_frame(scenedetect.FrameTimecode(index, rate), picture)
            cuts += [cut.frame_num for cut in found]
        chunk = range(chunk.stop, chunk.stop + max(1, CHUNK_BYTES // frames[0].nbytes))
    bounds = [0.0, *video.times[sorted(set(cuts))].tolist(), video.duration]
    return [Span(start, end) for start, end in pairwise(bounds)]


def frames_in(chunk: range, video: Video) -> range:
    """Those of a chunk that the video has."""
    return range(chunk.start, min(chunk.stop, len(video)))


def small_pictures(frames: torch.Tensor) -> np.ndarray:
    """Frames uint8 [T, 3, H, W] -> [T, h, w, 3] in OpenCV's order of colours, each side divided alike."""
    factor = max(1, max(frames.shape[2:]) // WIDTH)
    small = torch.stack([F.avg_pool2d(frame.float(), factor) for frame in frames])
    return np.ascontiguousarray(small.round().byte().flip(1).permute(0, 2, 3, 1).numpy())
