"""The exact reader: PyAV, every frame decoded in order from the first to the last one wanted."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av
import numpy as np
from av.stream import Disposition

from .errors import VideoReadError
from .frames import Chooser, Clip


class Packets(NamedTuple):
    """What the packets of a video stream say about its frames, before anything is decoded."""

    container: str  # names of the format, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    count: int  # packets that give a frame
    times: list[int]  # their presentation times, in display order; empty when one has none
    discarded: int  # packets that an edit list cuts off
    leading: int  # frames shown before the key frame they follow (open GOPs)
    starts_with_key: bool


@contextmanager
def open_video(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its best video stream. What FFmpeg raises inside becomes a VideoReadError."""
    try:
        with av.open(path, metadata_errors="ignore") as container:
            stream = best_stream(container)
            if stream is None:
                kinds = sorted({s.type for s in container.streams}) or ["nothing: cut off?"]
                raise VideoReadError(path, f"has no video stream (it holds {', '.join(kinds)})")
            if stream.codec_context is None:
                raise VideoReadError(path, "no decoder for its video stream")
            stream.codec_context.thread_count = 1  # more loader workers pay, more threads do not
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError: PyAV's own, on odd formats
        raise VideoReadError(path, f"{getattr(error, 'strerror', None) or error} (FFmpeg)") from error


def best_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that FFmpeg's own choice gives; cover pictures of sound files are none."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in videos else next(iter(videos), None)


def scan_packets(path: str) -> Packets:
    """One pass over the file without decoding: a few milliseconds."""
    with open_video(path) as (container, stream):
        times: list[int | None] = []
        discarded = leading = 0
        key_time, starts_with_key = None, False
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.is_discard:
                discarded += 1
                continue
            starts_with_key |= not times and packet.is_keyframe
            if packet.is_keyframe:
                key_time = packet.pts
            elif None not in (packet.pts, key_time) and packet.pts < key_time:
                leading += 1
            times.append(packet.pts)
        known = [] if None in times else sorted(times)
        return Packets(container.format.name, len(times), known, discarded, leading, starts_with_key)


def read(path: str, choose: Chooser, packets: Packets | None = None) -> Clip:
    """Exact frames and an exact count, at the price of decoding from the start. Memory: the frames wanted.

    The packets give the count in advance. Where the decoder disagrees (pictures that are never shown, or
    that lack the ones they build on), what it gives is the count, and `choose` is asked again.
    """
    packets = packets or scan_packets(path)
    if packets.count == 0:
        raise VideoReadError(path, "has no video frames")
    indices = list(choose(packets.count))
    frames, count = decode(path, set(indices), packets.times, packets.count)
    if count == 0:
        raise VideoReadError(path, "none of its video frames can be decoded")
    if count != packets.count:
        indices = list(choose(count))
        frames, _ = decode(path, set(indices), [], count, trusted=True)
    return Clip(np.stack([frames[i] for i in indices]), indices, count)


def decode(
    path: str, wanted: Iterable[int], times: list[int], expected: int, trusted: bool = False
) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames by index, and the count of frames: `expected` unless decoding has shown another.

    Stops at the last wanted frame when the count can be relied on up to there, that is when this frame
    carries the time that the packets foretold; goes on to the end of the file otherwise.
    """
    wanted, last = set(wanted), max(wanted)
    frames: dict[int, np.ndarray] = {}
    count, size = 0, None
    with open_video(path) as (container, stream):
        for frame in container.decode(stream):
            size = size or (frame.width, frame.height)
            if count in wanted:
                frames[count] = rgb_pixels(frame, *size)
            if count == last and (trusted or (times and frame.pts == times[last])):
                return frames, expected
            count += 1
    if trusted and len(frames) < len(wanted):
        raise VideoReadError(path, f"gives {count} frames now and {expected} before")
    return frames, count


def rgb_pixels(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """8-bit RGB [H, W, 3] of any pixel format, scaled to the given size, then turned as the file asks."""
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    quarters = round(frame.rotation / 90) % 4
    return np.rot90(pixels, quarters) if quarters else pixels
