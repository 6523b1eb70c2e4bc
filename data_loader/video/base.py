"""What an open video is, and what goes wrong with one. This file stands on numpy alone (see `process`)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np


class VideoReadError(RuntimeError):
    """A video that cannot be read. `path` names the file, `reason` says why, in words for a person."""

    def __init__(self, path: str | Path, reason: str = ""):
        super().__init__(str(path), reason)

    @property
    def path(self) -> str:
        return self.args[0]

    @property
    def reason(self) -> str:
        return self.args[1]

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class VideoReadTimeout(VideoReadError):
    """A video whose reader was given up after its time limit; another try would take as long."""


class FrameCountChanged(Exception):
    """The file has another number of frames than it promised: `len` and `times` are right now."""


class Video(ABC):
    """An open video file: how many frames it has, when each is shown, and the frames by their indices.

    path: the file. times: float64 [len], when each frame is shown, in seconds since the first one, never
    falling. duration: seconds from the first frame to the end of the last. lost: how many packets of the file
    could not be decoded so far; their frames do not count.

    A context manager, which closes the file.
    """

    path: str
    times: np.ndarray
    duration: float
    lost: int = 0

    def __len__(self) -> int:
        return len(self.times)

    @abstractmethod
    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Frames by index, in any order and as often as named: uint8 RGB [len(indices), H, W, 3].

        Raises:
            VideoReadError: the file is damaged there.
            FrameCountChanged: nothing was read; the indices are to be chosen anew.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of the file. Nothing can be read any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_indices(indices: Sequence[int], count: int) -> list[int]:
    """`indices` as plain ints. Raises ValueError when there are none or one lies outside [0, count)."""
    indices = [int(i) for i in indices]
    if not indices:
        raise ValueError("no frames were chosen")
    if min(indices) < 0 or max(indices) >= count:
        raise ValueError(
            f"frames {min(indices)} to {max(indices)} were chosen from a video of {count} frames"
        )
    return indices
