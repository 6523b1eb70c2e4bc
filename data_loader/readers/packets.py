"""What the packets of a video say about its frames: count, order and key frames, without decoding.

One pass over the file, a few milliseconds. It tells which readers can be relied on, and what has to be
decoded for a frame.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import av

from .container import open_video

TIMED = ("mov,mp4", "matroska,webm")  # containers that store when each frame is shown; others make it up


@dataclass(frozen=True)
class Packets:
    """The packets of a video stream, in the order in which they are decoded."""

    container: str  # names of the format, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    times: list[int | None] = field(default_factory=list)  # when each is shown, in the stream's time base
    keys: list[bool] = field(default_factory=list)  # whether decoding can start there
    discarded: list[bool] = field(default_factory=list)  # whether an edit list cuts it off

    @property
    def count(self) -> int:
        """Frames that the packets promise."""
        return len(self.times) - sum(self.discarded)

    def shown(self) -> list[int]:
        """The times of all frames in the order shown; empty where a packet has no time."""
        times = [t for t, cut in zip(self.times, self.discarded, strict=True) if not cut]
        return [] if None in times else sorted(times)

    def are_timed(self) -> bool:
        """Whether each frame has a time of its own, by which it can be found."""
        known = self.container.startswith(TIMED) and None not in self.times
        return known and len(set(self.times)) == len(self.times)

    def are_closed(self) -> bool:
        """Whether nothing is shown before the key frame that it follows, and the first packet is one.

        In open GOPs some frames are, and lean on the key frames on both sides: those at the very start cannot
        be decoded, and readers that seek go wrong.
        """
        latest = None
        for time, key in zip(self.times, self.keys, strict=True):
            if key:
                latest = time
            elif latest is None or time is None or time < latest:
                return False
        return True

    def start_clean(self) -> bool:
        """Whether the first packet is a key frame and none is shown before it."""
        return bool(self.keys) and self.keys[0] and min(self.times) == self.times[0]

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
    with open_video(path) as (container, stream):
        return list_packets(container.format.name, video_packets(container, stream))


def video_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of a video stream that hold something, as they stand in the file."""
    return (packet for packet in container.demux(stream) if packet.size)


def list_packets(container: str, packets: Iterable[av.Packet]) -> Packets:
    """What `video_packets` gives, as a list of facts. container: names of the format."""
    listed = Packets(container)
    for packet in packets:
        listed.times.append(packet.pts)
        listed.keys.append(bool(packet.is_keyframe))
        listed.discarded.append(bool(packet.is_discard))
    return listed
