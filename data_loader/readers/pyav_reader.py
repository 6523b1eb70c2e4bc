"""The exact reader: PyAV.

Where every frame has a time of its own, only the groups of pictures with wanted frames are decoded, and the
frames known by their times. Elsewhere (AVI, MPEG streams, damaged starts) all are decoded and counted.
"""

from collections.abc import Iterable

import av
import numpy as np
from av.video.frame import PictureType

from .container import open_video
from .errors import VideoReadError
from .frames import Chooser, Clip
from .packets import Packets, scan_packets


def read(path: str, choose: Chooser, packets: Packets | None = None) -> Clip:
    """Exact frames and an exact count. Memory: the frames wanted.

    The packets give the count in advance. Where the decoder disagrees (pictures that are never shown, or
    that lack the ones they build on), what it gives is the count, and `choose` is asked again.
    """
    packets = packets or scan_packets(path)
    if packets.count == 0:
        raise VideoReadError(path, "has no video frames")
    indices, count = list(choose(packets.count)), packets.count
    frames = decode_groups(path, set(indices), packets)
    if frames is None:
        frames, count = decode_all(path, set(indices), packets.shown(), packets.count)
    if count == 0:
        raise VideoReadError(path, "none of its video frames can be decoded")
    if count != packets.count:
        indices = list(choose(count))
        frames, again = decode_all(path, set(indices), [], count)
        if again != count:
            raise VideoReadError(path, f"gives {again} frames now and {count} before")
    return Clip(np.stack([frames[i] for i in indices]), indices, count)


def decode_groups(path: str, wanted: set[int], packets: Packets) -> dict[int, np.ndarray] | None:
    """The wanted frames by index, each decoded from the key frame before it; None where that is not safe."""
    if not packets.are_timed() or not packets.start_clean():
        return None
    shown = packets.shown()
    index_of = {shown[i]: i for i in wanted}
    ranges = packets.ranges(index_of)
    starts = {packets.times[first] for first, _ in ranges}
    started = set()
    frames: dict[int, np.ndarray] = {}
    size = None
    for frame in frames_of_ranges(path, ranges):
        if frame.pts in starts and frame.pict_type == PictureType.I:
            started.add(frame.pts)
        if frame.pts in index_of:
            size = size or (frame.width, frame.height)
            frames[index_of[frame.pts]] = rgb_pixels(frame, *size)
    # a start that gives no whole picture of its own is none: intra refresh builds them up over several frames
    return frames if started == starts and len(frames) == len(wanted) else None


def frames_of_ranges(path: str, ranges: list[tuple[int, int]]) -> Iterable[av.VideoFrame]:
    """What the decoder gives for ranges of packets, (first, last) positions, starting anew at each."""
    with open_video(path) as (container, stream):
        decoder = stream.codec_context
        coming = iter(ranges)
        first, last = next(coming)
        packets = (packet for packet in container.demux(stream) if packet.size)
        for position, packet in enumerate(packets):
            if position >= first:
                yield from packet.decode()
            if position == last:
                yield from decoder.decode(None)
                first, last = next(coming, (None, None))
                if first is None:
                    return
                decoder.flush_buffers()


def decode_all(
    path: str, wanted: set[int], times: list[int], expected: int
) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames by index, decoded in order from the first, and the number of frames.

    Stops at the last wanted one where this carries the time that `times` foretells, so that `expected` can
    be believed; goes on to the end of the file otherwise, and counts.
    """
    last = max(wanted)
    frames: dict[int, np.ndarray] = {}
    count, size = 0, None
    with open_video(path) as (container, stream):
        for frame in container.decode(stream):
            size = size or (frame.width, frame.height)
            if count in wanted:
                frames[count] = rgb_pixels(frame, *size)
            if count == last and times and frame.pts == times[last]:
                return frames, expected
            count += 1
    return frames, count


def rgb_pixels(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """8-bit RGB [H, W, 3] of any pixel format, scaled to the given size, then turned as the file asks."""
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    quarters = round(frame.rotation / 90) % 4
    return np.rot90(pixels, quarters) if quarters else pixels
