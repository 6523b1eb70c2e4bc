"""From a video file to chosen frames, whatever the file: `read_frames`, `read_clip` and `open_video`.

`reader` is one of READERS:

- "pyav" (default): exact;
- "decord": decord as it is, for exact comparison with the official release;
- "torchcodec": its exact seek mode, where it is installed.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from data_loader.sampling import sample_frames
from data_loader.video.base import FrameCountChanged, Video, VideoReadError, VideoReadTimeout, check_indices
from data_loader.video.cache import DecodedVideo, FrameCache
from data_loader.video.frame_folder import FRAME_RATE
from data_loader.video.process import RemoteVideo
from data_loader.video.readers import READERS, check_reader, open_local
from data_loader.video.sources import file_state

__all__ = [
    "FRAME_RATE",
    "READERS",
    "FrameCache",
    "Video",
    "VideoReadError",
    "VideoReadTimeout",
    "check_reader",
    "file_state",
    "open_video",
    "read_clip",
    "read_frames",
    "read_in_parts",
    "read_open",
]

logger = logging.getLogger(__name__)

PROBE = 12  # frames that are read before it is known how large they are
Chooser = Callable[[Video], Sequence[int]]


def open_video(
    path: str | Path,
    reader: str = "pyav",
    timeout: float | None = None,
    frame_rate: float = FRAME_RATE,
    span: tuple[float, float] | None = None,
) -> Video:
    """Opens a file, or what else `sources` names: its length, the times of its frames, the frames by index.

    timeout: seconds that opening, or one reading of frames, may take before the file is given up. Decoding
        then happens in a child process, which also contains a crash; None or infinity decodes here.
    frame_rate: of a folder of frames.
    span: start and end, in seconds, of what will be read. A long video may then have the frames from there
        alone, and some around them: indices count from the first of these, `times` say when each is shown,
        and `duration` may be less than the video's, but not less than the span's end where that is in it.

    Raises VideoReadError, which names the file and the reason; ImportError for a reader not installed,
    ValueError for one that does not exist.
    """
    check_reader(reader)
    path = os.fspath(path)
    file_state(path)
    in_memory = path.startswith("memory://")  # of this process alone
    if timeout is None or timeout == math.inf or in_memory:
        return open_local(path, reader, frame_rate, span)
    return RemoteVideo(path, reader, timeout, frame_rate, span)


def read_frames(
    path: str | Path,
    choose: Chooser,
    reader: str = "pyav",
    timeout: float | None = None,
    cache: FrameCache | None = None,
    span: tuple[float, float] | None = None,
) -> tuple[torch.Tensor, list[int], int]:
    """The frames of a video that `choose` names.

    choose: from the open video to the indices wanted, in any order. It is asked again where the number of
        frames proves wrong.
    cache: keeps whole small videos decoded.
    span: see `open_video`.

    Returns the frames uint8 [T, 3, H, W] (a view with the channels last in memory), their indices, and the
    number of frames in the file. Otherwise as `open_video`.
    """
    if cache is None:
        with open_video(path, reader, timeout, span=span) as video:
            return read_open(video, choose)
    key = (os.fspath(path), reader, *file_state(os.fspath(path)))
    decoded = cache.get(key)
    if decoded is None and cache.full:
        return read_frames(path, choose, reader, timeout, span=span)
    if decoded is None:
        with open_video(path, reader, timeout) as video:
            if not cache.wants(video):
                return read_open(video, choose)
            every_frame = read_open(video, lambda video: range(len(video)))[0]
            decoded = DecodedVideo(video, rearrange(every_frame.numpy(), "t c h w -> t h w c"))
        cache.add(key, decoded)
    return read_open(decoded, choose)


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
        path, lambda video: sample_frames(num_frames, len(video), sample, rng), reader, timeout, cache
    )


def read_open(video: Video, choose: Chooser) -> tuple[torch.Tensor, list[int], int]:
    """As `read_frames`, from a video that is open already."""
    frames, indices = _read_chosen(video, choose, lambda indices: as_tensor(video.read(indices)))
    return frames, indices, len(video)


def read_in_parts(
    video: Video, choose: Chooser, transform: Callable[[torch.Tensor], torch.Tensor], most_bytes: int = 2**28
) -> tuple[torch.Tensor, list[int]]:
    """Many frames of an open video, each made small by `transform` before too many are in memory.

    transform: from frames uint8 [n, 3, H, W] to as many tensors, each by itself. most_bytes: of frames as
        they come from the file, at once.

    Returns the transformed frames that `choose` names, and their indices. Raises VideoReadError.
    """

    def read(indices: Sequence[int]) -> torch.Tensor:
        wanted = sorted(set(indices))
        parts, done, size = [], 0, PROBE
        while done < len(wanted):
            pixels = video.read(wanted[done : done + size])
            done += len(pixels)
            size = max(1, most_bytes // pixels[0].nbytes)
            parts.append(transform(as_tensor(pixels)))
        frames = parts[0] if len(parts) == 1 else torch.cat(parts)
        if list(indices) == wanted:
            return frames
        row = {index: i for i, index in enumerate(wanted)}
        return frames.index_select(0, torch.tensor([row[i] for i in indices]))

    return _read_chosen(video, choose, read)


def _read_chosen(
    video: Video, choose: Chooser, read: Callable[[Sequence[int]], torch.Tensor]
) -> tuple[torch.Tensor, list[int]]:
    for _ in range(3):  # the number of frames is the header's, the packets', the decoder's
        indices = check_indices(choose(video), len(video))
        try:
            frames = read(indices)
        except FrameCountChanged:
            continue
        except MemoryError as error:
            raise VideoReadError(video.path, f"not enough memory for {len(indices)} of its frames") from error
        if video.lost:
            warn_of_lost(video.path, video.lost)
        return frames, indices
    raise VideoReadError(video.path, "has another number of frames each time it is read")


def as_tensor(frames: np.ndarray) -> torch.Tensor:
    """uint8 [T, H, W, 3] -> [T, 3, H, W], a view."""
    return rearrange(torch.from_numpy(frames), "t h w c -> t c h w")


_warned: set[str] = set()


def warn_of_lost(path: str, count: int) -> None:
    """Says once in this process that a file is damaged."""
    if path not in _warned:
        _warned.add(path)
        logger.warning("%s is damaged: %d of its packets cannot be decoded, the others are used", path, count)
