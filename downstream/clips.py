"""What one feature vector is of, a whole video or one window of its time, and how its frames are read."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch.utils.data import Dataset

from data_loader.failures import Failure
from data_loader.readers.errors import VideoReadTimeout
from data_loader.readers.pyav_reader import open_video
from data_loader.sampling import linspace_frames
from data_loader.transforms import feature_transform
from data_loader.video import VideoReadError, file_state, read_frames

READ_BYTES = 256 * 2**20  # of decoded frames that one read of a file may give


@dataclass(frozen=True)
class Clip:
    """A video file, or the window [start, end) of it, in seconds.

    A window knows its video's duration and the pixels of a frame.
    """

    path: str
    size_bytes: int
    modified_ns: int
    duration: float | None = None
    start: float | None = None
    end: float | None = None
    pixels: int = 0

    @classmethod
    def of_file(cls, path: str | Path) -> "Clip":
        """All of a file, or of a member shard.tar/a.mp4, which has the size and time of its shard; those of
        what is not there are -1."""
        path = os.path.abspath(path)
        file = os.path.dirname(path) if os.path.isfile(os.path.dirname(path)) else path
        try:
            status = os.stat(file)
        except OSError:
            return cls(path, -1, -1)
        return cls(path, status.st_size, status.st_mtime_ns)

    @property
    def key(self) -> tuple[Any, ...]:
        """As `resumable_table.row_keys` finds it in a table."""
        key = (self.path, self.size_bytes, self.modified_ns)
        return key if self.start is None else (*key, self.start)

    def span(self, vlen: int) -> tuple[int, int]:
        """First frame and the one after the last, of a file of `vlen` frames; at least one frame."""
        if self.start is None:
            return 0, vlen
        first = min(round(self.start / self.duration * vlen), vlen - 1)
        end = min(round(self.end / self.duration * vlen), vlen)
        return first, max(first + 1, end)

    @staticmethod
    def columns(clips: Sequence["Clip"]) -> dict[str, Any]:
        """The columns of a feature table that the clips themselves tell."""
        columns: dict[str, Any] = {"path": [clip.path for clip in clips]}
        for name in ("size_bytes", "modified_ns"):
            columns[name] = np.array([getattr(clip, name) for clip in clips])
        if clips[0].start is not None:
            columns["start"] = np.array([clip.start for clip in clips])
            columns["end"] = np.array([clip.end for clip in clips])
        return columns


def find_clips(paths: Sequence[str], window: float | None = None) -> tuple[list[Clip], dict[str, str]]:
    """The clips of each video, one or one for each `window` seconds, and why some files have none.

    Windows need every file's duration, so each is opened once; nothing is decoded.
    """
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: _find(path, window), paths))
    clips, failed = [], {}
    for path, video in zip(paths, found, strict=True):
        if isinstance(video, VideoReadError):
            failed[path] = video.reason
        else:
            clips += video
    return clips, failed


def _find(path: str, window: float | None) -> list[Clip] | VideoReadError:
    """The clips of one file. Errors are given back, not raised, so that all files get their turn."""
    try:
        video = Clip(path, *file_state(path))
        if window is None:
            return [video]
        duration, pixels = find_extent(path)
        return cut(replace(video, pixels=pixels), duration, window)
    except VideoReadError as error:
        return error


def find_extent(path: str) -> tuple[float, int]:
    """Seconds that a video lasts, NaN when neither the file nor its packets say; pixels of a frame.

    Raises:
        VideoReadError: there is no video in it.
    """
    with open_video(path) as (container, stream):
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration = container.duration / av.time_base
        else:
            duration = math.nan
        if not duration > 0:  # such as recordings of browsers
            duration = end_of_packets(container, stream)
        pixels = stream.codec_context.width * stream.codec_context.height
    return duration if duration > 0 else math.nan, pixels


def end_of_packets(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds at which the last frame ends, as the packets have it; NaN where they have no times."""
    packets = (packet for packet in container.demux(stream) if packet.pts is not None)
    end = max((packet.pts + (packet.duration or 0) for packet in packets), default=0)
    return float(end * stream.time_base) if end else math.nan


def cut(video: Clip, duration: float, window: float) -> list[Clip]:
    """Windows of `window` seconds that follow one another. A rest under a tenth of one joins the last.

    Raises:
        VideoReadError: the duration is not known.
    """
    if math.isnan(duration):
        raise VideoReadError(video.path, "does not say how long it is, so it cannot be cut into windows")
    count = max(1, math.ceil(duration / window - 0.1))
    starts = [i * window for i in range(count)]
    times = zip(starts, [*starts[1:], duration], strict=True)
    return [replace(video, duration=duration, start=start, end=end) for start, end in times]


def read_together(clips: Sequence[Clip], most: int, num_frames: int) -> list[range]:
    """Clips of the same file that follow one another, by their places, `most` or READ_BYTES at once.

    Opening a file means to go through all of it, so that a long one should not be opened for each window;
    nor should memory grow with its length.
    """
    reads: list[range] = []
    for i, clip in enumerate(clips):
        room = READ_BYTES // (3 * num_frames * max(1, clip.pixels))
        if reads and clips[reads[-1].start].path == clip.path and len(reads[-1]) < min(most, room):
            reads[-1] = range(reads[-1].start, i + 1)
        else:
            reads.append(range(i, i + 1))
    return reads


class ClipDataset(Dataset):
    """Clips with the official preprocessing: frames evenly from first to last, squashed to a square.

    Of `clips` those at the places `rows` are read. An item is what one read of a file gives, a list of at
    most `most` windows of it: for each clip {"index": its place, "video": uint8 [T, 3, S, S], "metadata":
    "duration" and "num_frames" of the file}, or {"index", "missing": Failure}.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        rows: Sequence[int],
        num_frames: int,
        image_size: int,
        reader: str,
        timeout: float | None,
        most: int = 1,
    ):
        self.clips = clips
        pending = [clips[row] for row in rows]
        self.reads = [rows[read.start : read.stop] for read in read_together(pending, most, num_frames)]
        self.num_frames = num_frames
        self.transform = feature_transform(image_size)
        self.reader = reader
        self.timeout = timeout

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        return self.items(self.reads[number])

    def items(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Items of clips of one file; what is damaged in it costs the windows there alone."""
        try:
            return self.read(rows)
        except VideoReadTimeout as error:  # each part of it would take as long again
            return [{"index": row, "missing": Failure.of(error)} for row in rows]
        except VideoReadError as error:
            if len(rows) == 1:
                return [{"index": rows[0], "missing": Failure.of(error)}]
        halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        return [item for half in halves for item in self.items(half)]

    def read(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Items of clips of one file. Raises VideoReadError."""
        clips = [self.clips[row] for row in rows]

        def choose(vlen: int) -> list[int]:
            spans = [clip.span(vlen) for clip in clips]
            return [first + i for first, end in spans for i in linspace_frames(self.num_frames, end - first)]

        path, duration = clips[0].path, clips[0].duration
        frames, _, vlen = read_frames(path, choose, reader=self.reader, timeout=self.timeout)
        if duration is None:
            duration, _ = find_extent(path)
        return [
            {
                "index": row,
                "video": self.transform(part),
                "metadata": {"duration": duration, "num_frames": vlen},
            }
            for row, part in zip(rows, frames.split(self.num_frames), strict=True)
        ]
