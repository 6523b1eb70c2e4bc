"""From a video file to chosen frames, whatever the file: `read_frames` and `read_clip`.

`reader` is one of READERS:

- "decord" (default): decord where it is right, PyAV where decord is known to go wrong or is missing;
- "decord-unguarded": decord as it is, for exact comparison with the official release;
- "pyav": every frame in order; exact, slower on long files;
- "torchcodec": its exact seek mode, where it is installed.
"""

import os
from pathlib import Path

import numpy as np
import torch

from data_loader.readers import READERS, Chooser, VideoReadError, read
from data_loader.sampling import sample_frames

__all__ = ["READERS", "VideoReadError", "read_clip", "read_frames"]


def read_frames(
    path: str | Path, choose: Chooser, reader: str = "decord", timeout: float | None = None
) -> tuple[torch.Tensor, list[int], int]:
    """The frames of a video that `choose` names.

    choose: from the number of frames in the file to the indices wanted.
    Returns the frames uint8 [T, 3, H, W] (a view with the channels last in memory), their indices, and the
    number of frames in the file.
    Raises VideoReadError, which names the file and the reason.
    """
    path = os.fspath(path)
    check_file(path)
    clip = read(path, choose, reader)
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2), clip.indices, clip.vlen


def read_clip(
    path: str | Path,
    num_frames: int,
    sample: str = "uniform",
    reader: str = "decord",
    rng: np.random.Generator | None = None,
    timeout: float | None = None,
) -> tuple[torch.Tensor, list[int], int]:
    """`num_frames` frames of a video by `sample_frames` (fewer when it is shorter); else as `read_frames`."""
    return read_frames(path, lambda vlen: sample_frames(num_frames, vlen, sample, rng), reader, timeout)


def check_file(path: str) -> None:
    """Raises VideoReadError for what needs no decoder to tell."""
    if not os.path.exists(path):
        raise VideoReadError(path, "no such file")
    if not os.path.isfile(path):
        raise VideoReadError(path, "is not a file")
    if os.path.getsize(path) == 0:
        raise VideoReadError(path, "the file is empty")
