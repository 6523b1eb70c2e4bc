"""The exact reader: PyAV.

Of a video of key frames alone (`intra`) nothing but the wanted frames is read. Where every frame has a time
of its own, only the groups of pictures with wanted frames are decoded, and the frames known by their times.
Elsewhere (AVI, MPEG streams, damaged starts) all are decoded and counted.
"""

import os
from collections.abc import Collection, Iterable, Iterator

import av
import numpy as np
from av.video.frame import PictureType

from .container import open_video
from .errors import VideoReadError
from .frames import Chooser, Clip
from .intra import key_frame_times, read_key_frames
from .packets import Packets, list_packets, scan_packets, video_packets
from .rgb import RGB, stacked

KEPT_BYTES = 64 * 2**20  # files up to this size are read once: their packets are kept until they are decoded


def read(path: str, choose: Chooser, packets: Packets | None = None) -> Clip:
    """Exact frames and an exact count. Memory: the frames wanted, and the packets of a small file.

    The packets give the count in advance. Where the decoder disagrees (pictures that are never shown, or
    that lack the ones they build on), what it gives is the count, and `choose` is asked again.
    """
    with open_video(path) as (container, stream):
        if packets is None and (times := key_frame_times(path, stream)):
            clip = read_key_frames(container, stream, times, choose)
            return clip or read(path, choose, scan_packets(path))
        coming = video_packets(container, stream)
        if packets is None and os.path.getsize(path) <= KEPT_BYTES:
            coming = list(coming)
            packets = list_packets(container.format.name, coming)
        packets = packets or scan_packets(path)
        if packets.count == 0:
            raise VideoReadError(path, "has no video frames")
        indices, count = list(choose(packets.count)), packets.count
        frames = decode_groups(stream.codec_context, coming, set(indices), packets)
    if frames is None:
        frames, count = decode_all(path, set(indices), packets.shown(), packets.count)
    if count == 0:
        raise VideoReadError(path, "none of its video frames can be decoded")
    if count != packets.count:
        indices = list(choose(count))
        frames, again = decode_all(path, set(indices), [], count)
        if again != count:
            raise VideoReadError(path, f"gives {again} frames now and {count} before")
    return Clip(stacked(frames, indices), indices, count)


def decode_groups(
    decoder: av.VideoCodecContext, coming: Iterable[av.Packet], wanted: set[int], packets: Packets
) -> dict[int, np.ndarray] | None:
    """The wanted frames by index, each decoded from the key frame before it; None where that is not safe.

    coming: the packets themselves, `packets` what they say.
    """
    if not packets.are_timed() or not packets.start_clean():
        return None
    shown = packets.shown()
    index_of = {shown[i]: i for i in wanted}
    ranges = packets.ranges(index_of)
    starts = {packets.times[first] for first, _ in ranges}
    started = set()
    frames: dict[int, np.ndarray] = {}
    to_rgb = RGB()
    for frame in frames_of_ranges(decoder, coming, ranges, index_of):
        if frame.pts in starts and frame.pict_type == PictureType.I:
            started.add(frame.pts)
        if frame.pts in index_of:
            frames[index_of[frame.pts]] = to_rgb(frame)
    # a start that gives no whole picture of its own is none: intra refresh builds them up over several frames
    return frames if started == starts and len(frames) == len(wanted) else None


def frames_of_ranges(
    decoder: av.VideoCodecContext,
    coming: Iterable[av.Packet],
    ranges: list[tuple[int, int]],
    times: Collection[int],
) -> Iterator[av.VideoFrame]:
    """What the decoder gives for ranges of packets, (first, last) positions, starting anew at each.

    Of H.264 it leaves out what is not shown at one of `times` and no other frame builds on (most B-frames);
    in other codecs such pictures may serve others after all, or the decoder does not know them.
    """
    skips = decoder.name == "h264"
    rest = iter(ranges)
    first, last = next(rest)
    for position, packet in enumerate(coming):
        if position >= first:
            if skips:
                decoder.skip_frame = "DEFAULT" if packet.pts in times else "NONREF"
            yield from packet.decode()
        if position == last:
            yield from decoder.decode(None)
            first, last = next(rest, (None, None))
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
    count, to_rgb = 0, RGB()
    with open_video(path) as (container, stream):
        for frame in container.decode(stream):
            to_rgb.see(frame)
            if count in wanted:
                frames[count] = to_rgb(frame)
            if count == last and times and frame.pts == times[last]:
                return frames, expected
            count += 1
    return frames, count
