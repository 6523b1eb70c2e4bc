"""Folders of numbered frames, 00001.jpg and so on, as videos."""

import os
import re
from collections.abc import Sequence

import numpy as np

from .base import Video, VideoReadError
from .packets import MAX_PIXELS
from .sources import is_picture

FRAME_RATE = 25.0  # frames a second, where nobody says another
NUMBERED = re.compile(r"(.*?)(\d+)\.\w+", re.DOTALL)


def frame_files(folder: str) -> list[str]:
    """The names of its frames in the order of their numbers; other files than pictures do not count.

    Raises VideoReadError: there is none, one has no number, their names differ in more than the number, or a
    number is missing or comes twice.
    """
    try:
        names = [n for n in os.listdir(folder) if is_picture(n)]
    except OSError as error:
        raise VideoReadError(folder, error.strerror or str(error)) from error
    by_number: dict[int, str] = {}
    prefixes: dict[str, str] = {}
    for name in sorted(names):
        found = NUMBERED.fullmatch(name)
        if found is None:
            raise VideoReadError(folder, f"the frame {name} has no number")
        number = int(found[2])
        if number in by_number:
            raise VideoReadError(folder, f"{by_number[number]} and {name} are both frame {number}")
        by_number[number] = name
        prefixes.setdefault(found[1], name)
    if not by_number:
        raise VideoReadError(folder, "is a folder without numbered frames (00001.jpg …)")
    if len(prefixes) > 1:
        one, other, *_ = prefixes.values()
        raise VideoReadError(folder, f"{one} and {other} are called otherwise: frames of one video?")
    first, last = min(by_number), max(by_number)
    for number in range(first, last + 1):
        if number not in by_number:
            raise VideoReadError(folder, f"frame {number} of {first} to {last} is missing")
    return [by_number[number] for number in range(first, last + 1)]


class FrameFolder(Video):
    """A folder's frames, as large as the first, shown at an even rate."""

    def __init__(self, path: str, frame_rate: float = FRAME_RATE):
        self.path, self.files = path, frame_files(path)
        self.times = np.arange(len(self.files)) / frame_rate
        self.duration = len(self.files) / frame_rate
        self.size = self._open(0).size

    def read(self, indices: Sequence[int]) -> np.ndarray:
        width, height = self.size
        frames = np.empty((len(indices), height, width, 3), np.uint8)
        for row, index in enumerate(indices):
            image = self._open(index)
            try:
                frames[row] = np.asarray(image.convert("RGB").resize(self.size))
            except (OSError, ValueError, SyntaxError) as error:
                raise VideoReadError(self.path, f"{self.files[index]}: {error}") from error
        return frames

    def _open(self, index: int):  # type: ignore[no-untyped-def]
        """A frame's picture, turned as its EXIF data say."""
        from PIL import Image, ImageOps

        name = self.files[index]
        try:
            image = Image.open(os.path.join(self.path, name))
            if image.width * image.height > MAX_PIXELS:
                raise VideoReadError(
                    self.path, f"{name}: {image.width} by {image.height} pixels are too many"
                )
            if image.mode.startswith(("I", "F")):
                raise VideoReadError(self.path, f"{name}: its pixels have more than 8 bits")
            return ImageOps.exif_transpose(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoReadError(self.path, f"{name}: {error}") from error
