"""What one feature vector is of, a whole video or one window of its time, and how its frames are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from data_loader.failures import Failure
from data_loader.spans import Span
from data_loader.transforms import Transform
from data_loader.video import Video, VideoReadError, VideoReadTimeout, file_state, open_video, read_in_parts
from data_loader.video.sources import absolute, split_member

if TYPE_CHECKING:
    from downstream.inputs.pieces import Cutting


@dataclass(frozen=True)
class Clip:
    """A video file, or a span of it.

    size_bytes, modified_ns: of the file, -1 where it is not there. duration: of the video, where it is known.
    row: of the list that names the clip, if one does; where: it stands there, for messages.
    """

    path: str
    size_bytes: int = -1
    modified_ns: int = -1
    duration: float | None = None
    span: Span | None = None
    row: int = 0
    where: str = field(default="", compare=False)

    @classmethod
    def of_file(cls, path: str | Path, span: Span | None = None) -> Clip:
        """All of a file, folder of frames or URL, or a span of it; also of a member shard.tar/a.mp4, with the
        size and time of its shard."""
        path = absolute(str(path))
        member = split_member(path)
        try:
            return cls(path, *file_state(member[0] if member else path), span=span)
        except VideoReadError:
            return cls(path, span=span)

    @property
    def key(self) -> tuple[Any, ...]:
        """As `resumable_table.row_keys` finds it in a table."""
        key = (self.path, self.size_bytes, self.modified_ns)
        return key if self.span is None else (*key, *self.span)

    def fault(self, duration: float) -> str:
        """Why it is no piece of a video that lasts so long, and where it is named; empty where it is one."""
        fault = "" if self.span is None else self.span.fault(duration)
        return f"{self.where}: {fault}" if fault and self.where else fault

    @staticmethod
    def columns(clips: Sequence[Clip]) -> dict[str, Any]:
        """The columns of a feature table that the clips themselves tell."""
        columns: dict[str, Any] = {"path": [clip.path for clip in clips]}
        for name in ("size_bytes", "modified_ns"):
            columns[name] = np.array([getattr(clip, name) for clip in clips])
        spans = [clip.span for clip in clips if clip.span is not None]
        if spans:
            columns["start"], columns["end"] = (np.array(times) for times in zip(*spans, strict=True))
        return columns


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
    """Clips as the official feature extraction has them: the frames of `cutting`, transformed.

    Of `clips` those at the places `rows` are read. An item is what one read of a file gives, a list of at
    most `most` pieces of it: for each clip {"index": its place, "video": uint8 [T, 3, S, S], "metadata":
    "duration" and "num_frames" of the file}, or {"index", "missing": Failure}.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        rows: Sequence[int],
        cutting: Cutting,
        transform: Transform,
        most: int = 1,
    ):
        self.clips, self.cutting = clips, cutting
        pending = [clips[row] for row in rows]
        self.reads = [rows[read.start : read.stop] for read in read_together(pending, most)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        return self.items(self.reads[number])

    def items(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Items of clips of one file; what is damaged in it costs the pieces there alone."""
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
        path = self.clips[rows[0]].path
        cutting = self.cutting
        with open_video(path, cutting.reader, cutting.timeout, cutting.folder_fps) as video:
            faults = {row: self.clips[row].fault(video.duration) for row in rows}
            items = [{"index": row, "missing": Failure(path, faults[row])} for row in rows if faults[row]]
            whole = [row for row in rows if not faults[row]]
            if not whole:
                return items

            def choose(video: Video) -> list[int]:
                return [frame for row in whole for frame in self.cutting.frames(self.clips[row], video)]

            frames, _ = read_in_parts(video, choose, self.transform)
            vlen, duration = len(video), self.clips[whole[0]].duration or video.duration
        metadata = {"duration": duration, "num_frames": vlen}
        return items + [
            {"index": row, "video": part, "metadata": metadata}
            for row, part in zip(whole, frames.split(self.cutting.num_frames), strict=True)
        ]
