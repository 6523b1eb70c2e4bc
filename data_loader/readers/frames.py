"""What readers take and give."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Chooser = Callable[[int], Sequence[int]]


class Clip(NamedTuple):
    frames: np.ndarray  # uint8 RGB [T, H, W, 3]
    indices: list[int]  # where they stand in the video
    vlen: int  # frames in the video
