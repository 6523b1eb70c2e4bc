"""The packets of a span of a long video, read at their place.

A film of an hour has a hundred thousand packets, all over its file; four seconds of it have a hundred, side
by side. Where the container stores times of frames, a seek leads to the key frame before the span, and
reading stops behind its end.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import av
import numpy as np

from .packets import TIMED, Packets, list_packets, seconds, video_packets

KEPT_BYTES = 64 * 2**20  # of packets in memory
REORDERED = 32  # packets within which a frame shown at a time is found: H.264 and HEVC allow 16
STEPS_BACK = (0, 1, 4, 16, 64)  # seconds; a seek may lead to a key frame that is shown too late


class SpanPackets(NamedTuple):
    """kept, packets: from the key frame on that the span's frames need. times: of the frames from there on,
    in seconds since the first of the video. duration: that of the video is so long at least, and exactly so
    where reading came to its end."""

    kept: list[av.Packet]
    packets: Packets
    times: np.ndarray
    duration: float


def read_span(
    path: str, container: av.container.InputContainer, stream: av.VideoStream, start: float, end: float
) -> SpanPackets | None:
    """What the frames need that are shown from `start` to `end`, in seconds; the container is just open.

    None where only the whole file tells: times are made up, the start of the file or a seek leads to no key
    frame, or the span is too large to be kept. Raises VideoReadError and FFmpeg's errors.
    """
    unit = stream.time_base
    if unit is None or not container.format.name.startswith(TIMED):
        return None
    head = list_packets(path, container, stream, islice(video_packets(container, stream), REORDERED))
    if not head.shown() or not head.are_timed() or not head.start_clean() or any(head.described):
        return None
    first = head.shown()[0]
    target = first + math.floor(start / unit)
    coming = _from_key_frame(container, stream, first, target, float(unit))
    kept = None if coming is None else _until(coming, first + end / float(unit))
    if kept is None:
        return None
    packets, ended = kept
    listed = list_packets(path, container, stream, packets)
    assert packets[0].pts is not None
    for position, time in enumerate(listed.times):  # those that lean on what is before the key frame
        listed.hidden[position] |= time is not None and time < packets[0].pts
    if not listed.are_timed() or not listed.shown() or any(listed.described):
        return None
    if stream.codec_context.pix_fmt == "pal8":
        return None
    shown = listed.shown()
    _, lasting = seconds(shown, listed.last_duration() if ended else None, stream)
    times = np.array(shown, np.float64) * float(unit) - first * float(unit)
    return SpanPackets(packets, listed, times, float(times[0]) + lasting)


def _from_key_frame(
    container: av.container.InputContainer, stream: av.VideoStream, first: int, target: int, unit: float
) -> Iterator[av.Packet] | None:
    """Packets from a key frame on that is shown by `target`; None where no seek leads to one."""
    for step in STEPS_BACK:
        to = max(target - int(step / unit), first)
        container.seek(to, stream=stream)
        coming = video_packets(container, stream)
        start = next(coming, None)
        if start is not None and start.is_keyframe and start.pts is not None and start.pts <= target:
            return chain([start], coming)
        if to == first:
            break
    return None


def _until(coming: Iterable[av.Packet], stop: float) -> tuple[list[av.Packet], bool] | None:
    """Packets until all that are shown before `stop` have come, and whether the file ended there; None where
    they are too large."""
    packets, size, beyond = [], 0, 0
    for packet in coming:
        packets.append(packet)
        size += packet.size
        if size > KEPT_BYTES:
            return None
        beyond += packet.dts is not None and packet.dts >= stop
        if beyond > REORDERED:
            return packets, False
    return packets, True
