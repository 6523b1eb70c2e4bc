"""What one feature vector is of, a whole video or one window of its time, and how its frames are read."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from data_loader.failures import Failure
from data_loader.sampling import TOLERANCE, frames_between, linspace_frames
from data_loader.transforms import Transform
from data_loader.video import (
    Video,
    VideoReadError,
    VideoReadTimeout,
    file_state,
    open_video,
    read_in_parts,
)


@dataclass(frozen=True)
class Clip:
    """A video file, or the window [start, end) of it, in seconds.

    A window knows its video's duration. Seconds count from the first frame shown.
    """

    path: str
    size_bytes: int
    modified_ns: int
    duration: float | None = None
    start: float | None = None
    end: float | None = None

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

    def span(self, video: Video) -> range:
        """The frames of the open file that it takes its own from; at least one."""
        if self.start is None or self.end is None:
            return range(len(video))
        return frames_between(video.times, self.start, self.end)

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


def find_clips(
    paths: Sequence[str], window: float | None = None, timeout: float | None = None
) -> tuple[list[Clip], dict[str, str]]:
    """The clips of each video, one or one for each `window` seconds, and why some files have none.

    Windows need the times of every file's frames, so each is opened once, for `timeout` seconds at most;
    nothing is decoded.
    """
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: _find(path, window, timeout), paths))
    clips, failed = [], {}
    for path, video in zip(paths, found, strict=True):
        if isinstance(video, VideoReadError):
            failed[path] = video.reason
        else:
            clips += video
    return clips, failed


def _find(path: str, window: float | None, timeout: float | None) -> list[Clip] | VideoReadError:
    """The clips of one file. Errors are given back, not raised, so that all files get their turn."""
    try:
        clip = Clip(path, *file_state(path))
        if window is None:
            return [clip]
        with open_video(path, timeout=timeout) as video:
            return cut(clip, video.times, video.duration, window)
    except VideoReadError as error:
        return error


def cut(video: Clip, times: np.ndarray, duration: float, window: float) -> list[Clip]:
    """The windows of `window` seconds, one after the other, in which frames appear at `times`.

    Time starts with the first frame. A rest under a tenth of a window joins the last.
    """
    last = max(0, math.ceil(duration / window - 0.1) - 1)
    numbers = np.unique(np.minimum((times + TOLERANCE) // window, last))
    return [
        replace(video, duration=duration, start=k * window, end=duration if k == last else (k + 1) * window)
        for k in numbers.tolist()
    ]


def read_together(clips: Sequence[Clip], most: int) -> list[range]:
    """Clips of the same file that follow one another, by their places, at most `most` at once.

    Opening a file means to go through all of it, so that a long one should not be opened for each window.
    """
    reads: list[range] = []
    for i, clip in enumerate(clips):
        if reads and clips[reads[-1].start].path == clip.path and len(reads[-1]) < most:
            reads[-1] = range(reads[-1].start, i + 1)
        else:
            reads.append(range(i, i + 1))
    return reads


class ClipDataset(Dataset):
    """Clips as the official feature extraction has them: frames evenly from first to last, transformed.

    Of `clips` those at the places `rows` are read. An item is what one read of a file gives, a list of at
    most `most` windows of it: for each clip {"index": its place, "video": uint8 [T, 3, S, S], "metadata":
    "duration" and "num_frames" of the file}, or {"index", "missing": Failure}.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        rows: Sequence[int],
        num_frames: int,
        transform: Transform,
        reader: str,
        timeout: float | None,
        most: int = 1,
    ):
        self.clips = clips
        pending = [clips[row] for row in rows]
        self.reads = [rows[read.start : read.stop] for read in read_together(pending, most)]
        self.num_frames = num_frames
        self.transform = transform
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

        def choose(video: Video) -> list[int]:
            spans = [clip.span(video) for clip in clips]
            return [span[i] for span in spans for i in linspace_frames(self.num_frames, len(span))]

        with open_video(clips[0].path, self.reader, self.timeout) as video:
            frames, _ = read_in_parts(video, choose, self.transform)
            vlen, duration = len(video), clips[0].duration or video.duration
        return [
            {"index": row, "video": part, "metadata": {"duration": duration, "num_frames": vlen}}
            for row, part in zip(rows, frames.split(self.num_frames), strict=True)
        ]
