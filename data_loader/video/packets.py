"""Opening a video file, and what its packets say about its frames without decoding: count, order, times and
key frames.

One pass over the file, a few milliseconds. It tells what has to be decoded for a frame.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from .base import FrameCountChanged, VideoReadError
from .sources import is_plain, open_source, raise_failure

TIMED = ("mov,mp4", "matroska,webm")  # containers that store when each frame is shown; others make it up
MAX_PIXELS = 2**27  # of a frame; 8K has a quarter of it
ENCRYPTED = "is encrypted"


@contextmanager
def ffmpeg_errors(path: str) -> Iterator[None]:
    """What FFmpeg raises inside becomes a VideoReadError. Only calls of FFmpeg belong in there."""
    try:
        yield
        raise_failure(path)
    except (FrameCountChanged, VideoReadError):
        raise_failure(path)
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError: PyAV's own, on odd formats
        raise_failure(path)
        hint = ": damaged, cut off, or not a video" if isinstance(error, av.error.InvalidDataError) else ""
        raise VideoReadError(path, f"{getattr(error, 'strerror', None) or error} (FFmpeg){hint}") from error


def open_stream(path: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    """The container and its best video stream. Raises VideoReadError."""
    file: Any = os.path.abspath(path)  # or what stands before a colon is taken for a protocol
    options = {}
    if not (is_plain(path) and _is_utf8(path)):  # a name that is no UTF-8 cannot be told to FFmpeg
        file = open_source(path)
        options = {"protocol_whitelist": "none"}  # a playlist is not to have other files opened
    with ffmpeg_errors(path):
        container = av.open(file, "r", metadata_errors="ignore", options=options)
    try:
        return container, decodable_stream(path, container)
    except BaseException:
        container.close()
        raise


@contextmanager
def open_container(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """`open_stream` for a `with`: FFmpeg's errors inside become VideoReadErrors, others stay."""
    container, stream = open_stream(path)
    with container:
        try:
            yield container, stream
        except av.error.FFmpegError as error:
            with ffmpeg_errors(path):
                raise error


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def decodable_stream(path: str, container: av.container.InputContainer) -> av.VideoStream:
    """The stream to read, its decoder set up. Raises VideoReadError where there is none."""
    stream = best_stream(container)
    if stream is None:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing: cut off?"
        raise VideoReadError(path, f"has no video stream (it holds {kinds})")
    if stream.codec_context is None:
        raise VideoReadError(path, "no decoder for its video stream")
    if "enc_key_id" in stream.metadata:  # Matroska
        raise VideoReadError(path, ENCRYPTED)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise VideoReadError(path, f"frames of {width} by {height} pixels are not read: they are too large")
    stream.codec_context.thread_count = 1  # more loader workers pay, more threads do not
    return stream


def best_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that FFmpeg's own choice gives; cover pictures of sound files are none."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in videos else next(iter(videos), None)


@dataclass(frozen=True)
class Packets:
    """The packets of a video stream, in the order in which they are decoded."""

    container: str  # names of the format, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    times: list[int | None] = field(default_factory=list)  # when each is shown, in the stream's time base
    keys: list[bool] = field(default_factory=list)  # whether decoding can start there
    hidden: list[bool] = field(default_factory=list)  # whether it is never shown, see `list_packets`
    durations: list[int | None] = field(default_factory=list)  # in the stream's time base
    described: list[bool] = field(default_factory=list)  # whether size or coding change with it

    @property
    def count(self) -> int:
        """Frames that the packets promise."""
        return len(self.times) - sum(self.hidden)

    def shown(self) -> list[int]:
        """The times of all frames in the order shown; empty where a packet has no time."""
        times = [t for t, hidden in zip(self.times, self.hidden, strict=True) if not hidden]
        known = [t for t in times if t is not None]
        return sorted(known) if len(known) == len(times) else []

    def last_duration(self) -> int | None:
        """How long the frame that is shown last stays, in the stream's time base."""
        if None in self.times:
            return None
        ends = [
            (t, d) for t, d, hidden in zip(self.times, self.durations, self.hidden, strict=True) if not hidden
        ]
        return max(ends, default=(0, None))[1]

    def are_timed(self) -> bool:
        """Whether each frame has a time of its own, by which it can be found."""
        known = self.container.startswith(TIMED) and None not in self.times
        return known and len(set(self.times)) == len(self.times)

    def start_clean(self) -> bool:
        """Whether the first packet is a key frame and none is shown before it."""
        return self.keys[:1] == [True] and self.times[0] == min(t for t in self.times if t is not None)

    def ranges(self, times: Iterable[int]) -> list[tuple[int, int]]:
        """The packets to decode for the frames shown at some times: (first, last) positions, in order, apart.

        A range starts with the last key frame that is not shown later than the frame it is for.
        """
        position = {t: i for i, t in enumerate(self.times)}
        keys = sorted((t, i) for i, (t, key) in enumerate(zip(self.times, self.keys, strict=True)) if key)
        needed = sorted((keys[bisect_right(keys, (t, len(self.times))) - 1][1], position[t]) for t in times)
        merged = needed[:1]
        for start, end in needed[1:]:
            if start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        return merged


def scan_packets(path: str) -> Packets:
    """Raises VideoReadError."""
    with open_container(path) as (container, stream):
        return list_packets(path, container, stream, video_packets(container, stream))


def video_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of a video stream that stand for a frame, as they lie in the file."""
    repeats = stream.codec_context.name == "theora"  # an empty packet there shows the frame before once more
    return (p for p in container.demux(stream) if p.size or (repeats and p.pts is not None))


def list_packets(
    path: str, container: av.container.InputContainer, stream: av.VideoStream, packets: Iterable[av.Packet]
) -> Packets:
    """What `video_packets` gives, as lists. Raises VideoReadError where they are encrypted.

    Hidden are those that an edit list cuts off, and VP8's and VP9's pictures for reference alone.
    """
    listed, is_reference = Packets(container.format.name), REFERENCES.get(stream.codec_context.name)
    for packet in packets:
        if packet.has_sidedata("encryption_info"):
            raise VideoReadError(path, ENCRYPTED)
        listed.times.append(packet.pts)
        listed.keys.append(bool(packet.is_keyframe))
        listed.hidden.append(bool(packet.is_discard or (is_reference and is_reference(memoryview(packet)))))
        listed.durations.append(packet.duration)
        listed.described.append(packet.has_sidedata("new_extradata"))
    return listed


def is_vp8_reference(packet: memoryview) -> bool:
    """RFC 6386, 9.1: bit 4 of the frame tag is show_frame."""
    return not packet[0] & 0x10


def is_vp9_reference(packet: memoryview) -> bool:
    """VP9 bitstream, 6.2: after marker and profile come show_existing_frame, frame_type and show_frame. Of
    several frames in one packet, a superframe (annex B), one is shown."""
    is_superframe = packet[-1] & 0xE0 == 0xC0
    profile_3 = packet[0] & 0x30 == 0x30  # has a reserved bit more
    existing, _, shown = (packet[0] >> (bit - profile_3) & 1 for bit in (3, 2, 1))
    return not (is_superframe or existing or shown)


REFERENCES = {"vp8": is_vp8_reference, "vp9": is_vp9_reference}


def seconds(
    times: Sequence[int | None], last_duration: int | None, stream: av.VideoStream
) -> tuple[np.ndarray, float]:
    """When frames are shown, in seconds since the first, and when the last one ends.

    times: of each frame as shown, in the stream's time base; where they are not known or do not rise, frames
    follow one another by the stream's rate. last_duration: of the last frame, where that is known.
    """
    gap, unit = 1 / float(stream.average_rate or stream.guessed_rate or 25), stream.time_base
    if None in times or unit is None:
        shown, last_duration = np.arange(len(times)) * gap, None
    else:
        shown = np.array(times, np.float64) * float(unit)
        shown -= shown[0]
        if (np.diff(shown) < 0).any():
            shown, last_duration = np.arange(len(times)) * gap, None
    if last_duration and unit is not None:
        gap = float(last_duration * unit)
    elif len(shown) > 1:
        gap = float(np.median(np.diff(shown))) or gap
    return shown, float(shown[-1]) + gap
