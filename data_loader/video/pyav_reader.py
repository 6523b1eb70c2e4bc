"""The default reader: PyAV, exact on every file that FFmpeg reads.

Of a video of key frames alone nothing but the wanted frames is read. Where every frame has a time of its own,
only the groups of pictures with wanted frames are decoded, and the frames known by their times. Elsewhere
(AVI, MPEG streams, damaged starts) all are decoded and counted.

A packet that the decoder refuses costs its frame alone, as in FFmpeg's own tools. Where more than one in ten
is refused the file counts as unreadable.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain

import av
import numpy as np
from av.video.frame import PictureType

from .base import FrameCountChanged, Video, VideoReadError
from .packets import (
    ENCRYPTED,
    Packets,
    ffmpeg_errors,
    list_packets,
    open_container,
    open_stream,
    seconds,
    video_packets,
)
from .pixels import Clip
from .sources import file_state
from .span_packets import KEPT_BYTES, read_span

MAX_LOST = 0.1  # of the packets


class PyAVVideo(Video):
    """The packets give the number of frames in advance. Where the decoder disagrees (pictures that are never
    shown, or that lack the ones they build on), what it gives is the number.

    span: start and end in seconds of the frames that will be wanted. Where that can be, only they and some
    around them are listed: `times` are theirs, and `duration` is no longer than the video's.
    """

    def __init__(self, path: str, span: tuple[float, float] | None = None):
        self.path = path
        self.of_span = False  # whether frames of the span alone are listed
        self.container, self.stream = open_stream(path)
        self.kept: list[av.Packet] | None = None
        self.packets = Packets(self.container.format.name)  # none are listed while the header is believed
        self.in_order = False  # whether frames are counted from the first one on
        self.untouched = True  # nothing was decoded yet
        self.size = self.stream.codec_context.width, self.stream.codec_context.height
        try:
            with ffmpeg_errors(path):
                self.key_times = key_frame_times(path, self.stream)
                if self.key_times is None:
                    if span is None or not self._list_span(*span):
                        self._list_packets()
                else:
                    last = (self.stream.duration or 0) + (self.stream.start_time or 0) - self.key_times[-1]
                    self.times, self.duration = seconds(self.key_times, max(last, 0), self.stream)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.kept = None
        self.container.close()

    def read(self, indices: Sequence[int]) -> np.ndarray:
        clip, untouched, self.untouched = Clip(indices), self.untouched, False
        with ffmpeg_errors(self.path):
            if self.key_times is not None:
                if not self._read_key_frames(clip, self.key_times):
                    self._list_anew()
            elif self.of_span:
                if not self._read_groups(clip):
                    self._list_anew()
            elif self.in_order and untouched and self.kept is not None:  # not from the file once more
                self._read_in_order(clip, AllFrames(self.path, self.kept, self.stream))
            elif self.in_order or not self._read_groups(clip):
                self.in_order, clip = True, Clip(indices)
                with open_container(self.path) as (container, stream):
                    frames = AllFrames(self.path, video_packets(container, stream), stream)
                    self._read_in_order(clip, frames)
        assert clip.pixels is not None, "no frames were asked for"
        return clip.pixels

    def _list_packets(self) -> None:
        coming: Iterable[av.Packet] = video_packets(self.container, self.stream)
        if file_state(self.path)[0] <= KEPT_BYTES:
            coming = self.kept = list(coming)
        self.packets = list_packets(self.path, self.container, self.stream, coming)
        if self.packets.count == 0:
            raise VideoReadError(self.path, "has no video frames")
        shown: Sequence[int | None] = self.packets.shown() or [None] * self.packets.count
        self.times, self.duration = seconds(shown, self.packets.last_duration(), self.stream)
        # a palette comes with the first packet, a new description with the first of those it is for
        starts_anywhere = self.stream.codec_context.pix_fmt != "pal8" and not any(self.packets.described)
        self.in_order = not (starts_anywhere and self.packets.are_timed() and self.packets.start_clean())

    def _list_span(self, start: float, end: float) -> bool:
        """Reads the packets of a span; False, with the file opened anew, where it takes those of the file."""
        found = read_span(self.path, self.container, self.stream, start, end)
        if found is None:
            self._reopen()
            return False
        self.kept, self.packets, self.times, self.duration = found
        self.of_span = True
        return True

    def _list_anew(self) -> None:
        """Reads all packets of a file whose header, or whose span, has turned out to mislead."""
        self.key_times, self.of_span = None, False
        self._reopen()
        self._list_packets()
        raise FrameCountChanged

    def _reopen(self) -> None:
        self.close()
        self.container, self.stream = open_stream(self.path)

    def _read_key_frames(self, clip: Clip, times: Sequence[int]) -> bool:
        """The wanted frames, each by seeking to its time; False where a frame is not as the header has it."""
        decoder = self.stream.codec_context
        for i in sorted(clip.missing):
            time = times[i]
            self.container.seek(time, stream=self.stream)
            packet = next(video_packets(self.container, self.stream), None)
            if packet is None or packet.pts != time or not packet.is_keyframe:
                return False
            if packet.has_sidedata("encryption_info"):
                raise VideoReadError(self.path, ENCRYPTED)
            try:
                decoded = packet.decode() + decoder.decode(None)
            except av.error.InvalidDataError:
                return False
            if [(f.pts, f.pict_type) for f in decoded] != [(time, PictureType.I)]:
                return False
            if (decoded[0].width, decoded[0].height) != self.size:
                return False
            clip.add(i, decoded[0])
        return True

    def _read_groups(self, clip: Clip) -> bool:
        """The wanted frames, each decoded from the key frame before it; False where that is not safe."""
        shown = self.packets.shown()
        index_of = {shown[i]: i for i in clip.missing}
        ranges = self.packets.ranges(index_of)
        starts = {self.packets.times[first] for first, _ in ranges}
        started = set()
        try:
            for frame in self._frames_of_ranges(ranges, index_of):
                if (frame.width, frame.height) != self.size:
                    return False  # frames are scaled to the first one, which may not be among these
                if frame.pts in starts and frame.pict_type == PictureType.I:
                    started.add(frame.pts)
                if frame.pts in index_of:
                    clip.add(index_of[frame.pts], frame)
        except av.error.InvalidDataError:
            return False
        # a start that gives no whole picture of its own is none: intra refresh builds them up over several
        return started == starts and not clip.missing

    def _frames_of_ranges(
        self, ranges: Sequence[tuple[int, int]], times: Container[int | None]
    ) -> Iterator[av.VideoFrame]:
        """What the decoder gives for ranges of packets, (first, last) positions, starting anew at each.

        Of H.264 it leaves out what is not shown at one of `times` and no other frame builds on (most
        B-frames); in other codecs such pictures may serve others after all, or the decoder does not know
        them.
        """
        coming = self._packets_from(ranges[0][0])
        decoder = self.stream.codec_context
        skips = decoder.name == "h264"
        rest = iter(ranges)
        first, last = next(rest)
        for position, packet in coming:
            if position >= first:
                if skips:
                    decoder.skip_frame = "DEFAULT" if packet.pts in times else "NONREF"
                yield from packet.decode()
            if position == last:
                yield from decoder.decode(None)
                decoder.flush_buffers()
                following = next(rest, None)
                if following is None:
                    return
                first, last = following

    def _packets_from(self, first: int) -> Iterator[tuple[int, av.Packet]]:
        """Packets with their positions, from the one at `first`, a key frame, or from an earlier one on."""
        if self.kept is not None:
            return enumerate(self.kept)
        self._reopen()
        time = self.packets.times[first]
        if first == 0 or time is None:
            return enumerate(video_packets(self.container, self.stream))
        self.container.seek(time, stream=self.stream)
        coming = video_packets(self.container, self.stream)
        start = next(coming, None)
        if start is not None and start.pts == time:
            return enumerate(chain([start], coming), first)
        self._reopen()
        return enumerate(video_packets(self.container, self.stream))

    def _read_in_order(self, clip: Clip, frames: "AllFrames") -> None:
        """The wanted frames, all being decoded in order from the first.

        Stops at the last wanted one where it has the time that the packets predict for it, so that their
        number can be believed; goes on to the end of the file otherwise, and counts.
        """
        expected = self.packets.shown()
        last = max(clip.rows)
        times: list[int | None] = []
        for time, frame in frames:
            clip.add(len(times), frame)
            times.append(time)
            if len(times) == last + 1 and expected and time == expected[last]:
                break
        else:
            expected = []
        self.lost = frames.lost
        if expected:
            return
        if not times:
            raise VideoReadError(self.path, "none of its video frames can be decoded")
        if len(times) != len(self):
            self.times, self.duration = seconds(times, None, self.stream)
            raise FrameCountChanged


class AllFrames:
    """All frames of a stream with their times, in the order shown.

    `lost` counts the packets that the decoder refused. Raises VideoReadError at the end where these were too
    many, and at once where packets are encrypted.
    """

    def __init__(self, path: str, packets: Iterable[av.Packet], stream: av.VideoStream):
        self.path, self.packets, self.stream = path, packets, stream
        self.lost = 0

    def __iter__(self) -> Iterator[tuple[int | None, av.VideoFrame]]:
        latest, count = None, 0
        for packet in self.packets:
            count += 1
            if packet.has_sidedata("encryption_info"):
                raise VideoReadError(self.path, ENCRYPTED)
            if not packet.size:
                if latest is not None:
                    yield packet.pts, latest
                continue
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                self.lost += 1
                continue
            for latest in frames:
                yield latest.pts, latest
        for frame in self.stream.codec_context.decode(None):
            yield frame.pts, frame
        if self.lost > MAX_LOST * count:
            raise VideoReadError(self.path, f"{self.lost} of its {count} packets cannot be decoded: damaged")


def key_frame_times(path: str, stream: av.VideoStream) -> list[int] | None:
    """When each frame is shown, in the stream's time base; None where some frame leans on another.

    Videos of key frames alone are what scripts/prepare_videos.sh writes. The header of an MP4 says where each
    frame lies and when it is decoded, which is then also when it is shown. So nothing but the wanted frames
    need be read, which counts on a network drive.

    None, too, where the header need not be right: parts of the file are missing, an edit list cuts frames
    off, or the index is one that grows while the file is read; and where a palette comes with the first
    frame.
    """
    entries = list(stream.index_entries)
    if not entries or len(entries) != stream.frames or stream.codec_context.has_b_frames:
        return None
    if not all(entry.is_keyframe and not entry.is_discard and entry.size for entry in entries):
        return None
    if max(entry.pos + entry.size for entry in entries) > file_state(path)[0]:
        return None
    if stream.codec_context.pix_fmt == "pal8":
        return None
    times = [entry.timestamp for entry in entries]
    return times if times == sorted(set(times)) else None
