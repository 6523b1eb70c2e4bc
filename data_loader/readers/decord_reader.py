"""decord as it is, the reader of the official release, for exact comparison with it.

It seeks by time stamps and can be wrong without a word, or hang, on files whose time stamps do not lead
straight to a frame: stream-copied cuts (edit lists), AVI and MPEG streams, open GOPs, wrong key frames. It
turns frames as a file asks, and does not mirror them.
"""

import re

import numpy as np

from .errors import VideoReadError
from .frames import Chooser, Clip

try:
    import decord
except (ImportError, OSError):  # no wheel for Arm Linux and Apple silicon
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)


def read(path: str, choose: Chooser) -> Clip:
    """Raises ImportError with what to install."""
    if decord is None:
        raise ImportError("reader 'decord' needs the package decord: pip install decord, or take 'pyav'")
    try:
        video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        vlen = len(video)
        if vlen == 0:
            raise VideoReadError(path, "has no video frames")
        indices = list(choose(vlen))
        # not the "torch" bridge: it is a global of one thread and does not reach loader workers
        return Clip(np.asarray(video.get_batch(indices).asnumpy()), indices, vlen)
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(path, f"{_first_line(error)} (decord)") from error


def _first_line(error: Exception) -> str:
    """decord's message without the time, the source line and the stack trace around it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[[\d:]+\] \S+: ", "", lines[0])
