"""From a video file to chosen frames, whatever the file: `read_frames` and `read_clip`.

`reader` is one of READERS:

- "pyav" (default): exact;
- "decord": decord as it is, for exact comparison with the official release;
- "torchcodec": its exact seek mode, where it is installed.
"""

import math
import os
import stat
from pathlib import Path

import numpy as np
import torch

from data_loader.readers import READERS, Chooser, Clip, VideoReadError, check_reader, read
from data_loader.readers.cache import FrameCache
from data_loader.readers.killable import read_killable
from data_loader.sampling import sample_frames

__all__ = ["READERS", "FrameCache", "VideoReadError", "check_reader", "read_clip", "read_frames"]


def read_frames(
    path: str | Path,
    choose: Chooser,
    reader: str = "pyav",
    timeout: float | None = None,
    cache: FrameCache | None = None,
) -> tuple[torch.Tensor, list[int], int]:
    """The frames of a video that `choose` names.

    choose: from the number of frames in the file to the indices wanted, in any order. It is asked again
        where the number proves wrong.
    timeout: seconds after which the file is given up. Decoding then happens in a child process, which also
        contains a crash; None or infinity decodes here.
    cache: keeps whole small videos decoded.

    Returns the frames uint8 [T, 3, H, W] (a view with the channels last in memory), their indices, and the
    number of frames in the file.
    Raises VideoReadError, which names the file and the reason; ImportError for a reader not installed,
    ValueError for one that does not exist.
    """
    check_reader(reader)
    path = os.fspath(path)
    key = (path, reader, *file_state(path))

    def choose_checked(vlen: int) -> list[int]:
        return checked_indices(choose(vlen), vlen)

    def read_file(choose: Chooser) -> Clip:
        if timeout is None or timeout == math.inf:
            return read(path, choose, reader)
        return read_killable(path, choose, reader, timeout)

    if cache is None:
        clip = read_file(choose_checked)
    else:
        clip = _read_cached(cache, key, choose_checked, read_file)
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2), clip.indices, clip.vlen


def read_clip(
    path: str | Path,
    num_frames: int,
    sample: str = "uniform",
    reader: str = "pyav",
    rng: np.random.Generator | None = None,
    timeout: float | None = None,
    cache: FrameCache | None = None,
) -> tuple[torch.Tensor, list[int], int]:
    """`num_frames` frames of a video by `sample_frames` (fewer when it is shorter); else as `read_frames`."""
    return read_frames(
        path, lambda vlen: sample_frames(num_frames, vlen, sample, rng), reader, timeout, cache
    )


def _read_cached(cache: FrameCache, key: tuple, choose: Chooser, read_file) -> Clip:
    """A clip out of the cache, where the video is put first if it is small enough."""
    video = cache.get(key)
    if video is None:
        clip = read_file(lambda vlen: list(range(vlen)) if cache.wants(vlen) else choose(vlen))
        if not cache.wants(clip.vlen):
            return clip
        video = clip.frames
        cache.add(key, video)
    indices = choose(len(video))
    return Clip(video[indices], indices, len(video))


def checked_indices(indices: list[int], vlen: int) -> list[int]:
    """`indices` as plain ints. Raises ValueError when there are none or one lies outside [0, vlen)."""
    indices = [int(i) for i in indices]
    if not indices:
        raise ValueError("no frames were chosen")
    if min(indices) < 0 or max(indices) >= vlen:
        raise ValueError(f"frames {min(indices)} to {max(indices)} were chosen from a video of {vlen} frames")
    return indices


def file_state(path: str) -> tuple[int, int]:
    """Size and time of change. Raises VideoReadError for what needs no decoder to tell."""
    try:
        state = os.stat(path)
    except FileNotFoundError as error:
        raise VideoReadError(path, "no such file") from error
    except OSError as error:
        raise VideoReadError(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(state.st_mode):
        raise VideoReadError(path, "is not a file")
    if state.st_size == 0:
        raise VideoReadError(path, "the file is empty")
    return state.st_size, state.st_mtime_ns
