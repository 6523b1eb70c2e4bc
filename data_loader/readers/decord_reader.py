"""decord, the reader of the official release: it seeks, so it is fast, and it can be wrong or hang.

Wrong frames without a word, or an endless loop, come from files whose time stamps do not lead straight to
a frame: stream-copied cuts (edit lists), AVI and MPEG streams, open GOPs. `read_guarded` looks at the
packets first and leaves those files, and any that decord refuses, to PyAV. `read_unguarded` trusts decord
as the official code does.
"""

import re

import numpy as np

from . import pyav_reader
from .errors import VideoReadError
from .frames import Chooser, Clip
from .packets import Packets, scan_packets

try:
    import decord
except (ImportError, OSError):  # no wheel for Arm Linux and Apple silicon
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)


def read_guarded(path: str, choose: Chooser) -> Clip:
    """decord where its frames can be relied on, PyAV where not and where decord is not installed."""
    packets = scan_packets(path)
    if decord is not None and can_seek(packets):
        try:
            clip = _read(path, choose, packets.count)
        except (decord.DECORDError, RuntimeError, IndexError):
            clip = None  # PyAV reads some of these, and says what is wrong with the others
        if clip is not None:
            return clip
    return pyav_reader.read(path, choose, packets)


def read_unguarded(path: str, choose: Chooser) -> Clip:
    """decord as it is."""
    if decord is None:
        raise ImportError(
            "reader 'decord-unguarded' needs the package decord: pip install decord, or take 'pyav'"
        )
    try:
        return _read(path, choose)
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoReadError(path, f"{_first_line(error)} (decord)") from error


def can_seek(packets: Packets) -> bool:
    """Whether decord finds every frame by its time."""
    return packets.are_timed() and packets.are_closed() and not any(packets.discarded)


def _read(path: str, choose: Chooser, count: int | None = None) -> Clip | None:
    """decord's frames; with `count`, None when decord counts otherwise or shows frames before time 0."""
    video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    vlen = len(video)
    if vlen == 0:
        raise VideoReadError(path, "has no video frames")
    if count is not None:
        starts = video.get_frame_timestamp(list(range(vlen)))[:, 0]
        if vlen != count or starts.min() < -1e-6:
            return None
    indices = list(choose(vlen))
    # not the "torch" bridge: it is a global of one thread and does not reach loader workers
    return Clip(np.asarray(video.get_batch(indices).asnumpy()), indices, vlen)


def _first_line(error: Exception) -> str:
    """decord's message without the time, the source line and the stack trace around it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[[\d:]+\] \S+: ", "", lines[0])
