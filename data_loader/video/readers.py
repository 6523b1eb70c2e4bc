"""The readers by their names, and those beside PyAV's: decord and torchcodec, where they are installed."""

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

import av
import numpy as np

from .base import Video, VideoReadError
from .frame_folder import FRAME_RATE, FrameFolder
from .packets import list_packets, open_container, seconds, video_packets
from .pixels import is_mirrored, upright
from .pyav_reader import PyAVVideo
from .sources import is_plain

READERS = ("pyav", "decord", "torchcodec")


def check_reader(reader: str) -> None:
    """Raises ValueError on a name that is not one of READERS."""
    if reader == "decord-unguarded":
        raise ValueError("reader 'decord-unguarded' is now called 'decord'; 'pyav', the default, is exact")
    if reader not in READERS:
        raise ValueError(f"unknown video reader {reader!r}; choose one of {', '.join(READERS)}")


def open_local(
    path: str, reader: str, frame_rate: float = FRAME_RATE, span: tuple[float, float] | None = None
) -> Video:
    """Opens a file in this process, by one of READERS, or a folder of frames at a rate; span: see
    `open_video`.

    Raises VideoReadError, ImportError where the reader is not installed, ValueError on an unknown reader.
    """
    check_reader(reader)
    if os.path.isdir(path):
        return FrameFolder(path, frame_rate)
    if reader != "pyav" and not is_plain(path):
        raise VideoReadError(path, f"reader {reader} reads files of this machine alone: take 'pyav'")
    if reader == "pyav":
        return PyAVVideo(path, span)
    return {"decord": DecordVideo, "torchcodec": open_torchcodec}[reader](path)


class DecordVideo(Video):
    """decord as it is, the reader of the official release, for exact comparison with it.

    It seeks by time stamps and can be wrong without a word, or hang, on files whose time stamps do not lead
    straight to a frame: stream-copied cuts (edit lists), AVI and MPEG streams, open GOPs, wrong key frames.
    It turns frames as a file asks, and does not mirror them. Encrypted frames are noise.
    """

    def __init__(self, path: str):
        """Raises ImportError with what to install, VideoReadError."""
        decord = import_decord()
        self.path, self.errors = path, (decord.DECORDError, RuntimeError, IndexError, ValueError)
        try:
            self.decoder = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1)
            count = len(self.decoder)
            stamps = self.decoder.get_frame_timestamp(list(range(count)))  # [count, 2], start and end
        except self.errors as error:
            raise self._unreadable(error) from error
        if count == 0:
            raise VideoReadError(path, "has no video frames")
        self.times = np.maximum.accumulate(stamps[:, 0].astype(np.float64)) - stamps[0, 0]
        self.duration = float(max(stamps[-1, 1] - stamps[0, 0], self.times[-1]))

    def read(self, indices: Sequence[int]) -> np.ndarray:
        try:
            # not the "torch" bridge: it is a global of one thread and does not reach loader workers
            return np.asarray(self.decoder.get_batch(list(indices)).asnumpy())
        except self.errors as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> VideoReadError:
        """decord's message without the time, the source line and the stack trace around it."""
        line = re.sub(r"^\[[\d:]+\] \S+: ", "", _first_line(error))
        return VideoReadError(self.path, f"{line} (decord)")


def import_decord() -> ModuleType:
    """Raises ImportError with what to install: there is no wheel for Arm Linux and Apple silicon."""
    try:
        import decord
    except (ImportError, OSError) as error:
        message = "reader 'decord' needs the package decord: pip install decord, or take 'pyav'"
        raise ImportError(message) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class TorchcodecVideo(Video):
    """torchcodec in its exact seek mode, for files that it reads rightly; see `open_torchcodec`."""

    def __init__(self, path: str, times: np.ndarray, duration: float, size: tuple[int, int]):
        """size: (height, width) of the first frame, to which PyAV scales others that have another one. Raises
        ImportError with what to install, VideoReadError."""
        self.path, self.times, self.duration, self.size = path, times, duration, size
        options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "seek_mode": "exact"}
        try:
            self.decoder = import_torchcodec().VideoDecoder(os.path.abspath(path), **options)
            self.count = len(self.decoder)
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._failure(error) from error

    def read(self, indices: Sequence[int]) -> np.ndarray:
        try:
            frames = self.decoder.get_frames_at(list(indices)).data.numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            if "pre-allocated tensor" not in str(error):  # sizes that differ among these frames
                raise self._failure(error) from error
            frames = None
        if frames is not None and frames.shape[1:3] == self.size:
            return frames
        with PyAVVideo(self.path) as video:
            return video.read(indices)

    def _failure(self, error: Exception) -> Exception:
        if "libtorchcodec" in str(error):  # looked for at the first use only
            return _no_torchcodec(error)
        return VideoReadError(self.path, f"{_first_line(error)} (torchcodec)")


def open_torchcodec(path: str) -> Video:
    """torchcodec where it is exact, PyAV for other files.

    torchcodec is off by some frames where they have no time stamps or are hidden, does not mirror them,
    trusts headers in which each frame passes for a key frame, takes a track's first description for all, and
    does not scale frames that change size.
    """
    import_torchcodec()
    frames: list[av.VideoFrame] = []

    def decoded_to_the_first_frame(coming: Iterable[av.Packet]) -> Iterator[av.Packet]:
        for packet in coming:
            if not frames:
                frames.extend(packet.decode())
            yield packet

    try:
        with open_container(path) as (container, stream):
            coming = decoded_to_the_first_frame(video_packets(container, stream))
            packets = list_packets(path, container, stream, coming)
            if not packets.count or not packets.are_timed() or all(packets.keys) or any(packets.described):
                return PyAVVideo(path)
            times, duration = seconds(packets.shown(), packets.last_duration(), stream)
            first = next(iter(frames or stream.codec_context.decode(None)), None)
    except VideoReadError:
        return PyAVVideo(path)  # reads what can be read, or says what is wrong
    if first is not None and not is_mirrored(first):
        height, width = upright(np.empty((first.height, first.width, 3)), first).shape[:2]
        video = TorchcodecVideo(path, times, duration, (height, width))
        if video.count == len(video):
            return video
    return PyAVVideo(path)


def import_torchcodec() -> ModuleType:
    """torchcodec.decoders. Raises ImportError with what to install."""
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        raise _no_torchcodec(error) from error


def _no_torchcodec(error: Exception) -> ImportError:
    return ImportError(
        "reader 'torchcodec' needs the package torchcodec and FFmpeg's shared libraries "
        f"(pip install torchcodec; or take reader 'pyav'): {error}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
