"""One video written anew so that it loads fast: H.264, small, upright, many key frames, no sound."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from data_loader.transforms import nearest_index, resized_shape
from data_loader.video import VideoReadError, file_state
from data_loader.video.packets import open_container, scan_packets, video_packets
from data_loader.video.pixels import RGB
from data_loader.video.pyav_reader import AllFrames

# x264's, from the fastest to the smallest files
PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
    "placebo",
)


@dataclass(frozen=True)
class Encoding:
    """How the videos are written."""

    short_side: int = 268  # pixels; int(1.2 · 224), so that nothing is left to resize when loading
    key_frames: int = 1  # frames from one key frame to the next; 1: no frame needs another
    crf: int = 17  # x264's quality, lower is better; 0 is lossless
    preset: str = "fast"  # of PRESETS


def encode(source: Path, target: Path, encoding: Encoding) -> int:
    """Write one video anew and return its number of frames.

    While this lasts, the target is locked (`is_being_written`).

    Raises:
        VideoReadError: the source cannot be read, or not be shown by H.264. OSError: the target cannot be
            written.
    """
    with open(target, "wb") as file:
        with suppress(OSError):  # some network drives have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            count = write_frames(upright_frames(source, encoding.short_side), target, encoding)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise VideoReadError(str(source), f"cannot be encoded: {error.strerror} (FFmpeg)") from error
        os.fsync(file.fileno())
    if count == 0:
        raise VideoReadError(str(source), "has no video frames")
    written = scan_packets(str(target)).count
    if written != count:
        raise VideoReadError(str(source), f"{count} frames came in and {written} went out")
    return count


@dataclass(frozen=True)
class Frame:
    """One picture of a stream and when it is shown."""

    pixels: np.ndarray  # uint8 RGB [H, W, 3]
    time: int  # in units of the stream's time base, always rising
    time_base: Fraction
    rate: Fraction | None  # the stream's frames a second, where known


def upright_frames(source: Path, short_side: int) -> Iterator[Frame]:
    """Every frame of a video as it is shown, made smaller where its shorter side exceeds `short_side`.

    Pixels are picked as the data sets' own resize picks them, so that what changes is the compression alone.
    Raises VideoReadError.
    """
    file_state(os.fspath(source))  # a pipe of that name would never end
    to_rgb, first, last = RGB(), None, -1
    with open_container(os.fspath(source)) as (container, stream):
        if stream.time_base is None:
            raise VideoReadError(source, "does not say in what unit its times are")
        for shown_at, frame in AllFrames(os.fspath(source), video_packets(container, stream), stream):
            pixels = to_rgb(frame)
            height, width = pixels.shape[:2]
            if min(height, width) > short_side:
                height, width = resized_shape(height, width, short_side)
                rows, cols = nearest_index(pixels.shape[0], height), nearest_index(pixels.shape[1], width)
                pixels = pixels[rows[:, None], cols]
            time = last + 1 if shown_at is None else shown_at
            first = time if first is None else first
            last = max(time - first, last + 1)
            yield Frame(np.ascontiguousarray(pixels), last, stream.time_base, stream.average_rate)


def write_frames(frames: Iterator[Frame], path: Path, encoding: Encoding) -> int:
    """Write an MP4 of one H.264 stream and return the number of frames; none, and the file is not whole."""
    count, stream, converter = 0, None, VideoReformatter()
    # "file:", or FFmpeg takes what stands before a colon for a protocol
    with av.open(f"file:{path}", "w", format="mp4") as container:
        for shown in frames:
            if stream is None:
                stream = add_stream(container, shown, encoding)
            picture = av.VideoFrame.from_ndarray(shown.pixels, format="rgb24")
            picture = converter.reformat(picture, format=stream.pix_fmt, threads=1)
            picture.pts, picture.time_base = shown.time, shown.time_base
            container.mux(stream.encode(picture))
            count += 1
        if stream is not None:
            container.mux(stream.encode())
    return count


def add_stream(container: av.container.OutputContainer, first: Frame, encoding: Encoding) -> av.VideoStream:
    """An H.264 stream for frames like the first one."""
    height, width = first.pixels.shape[:2]
    options = {
        "tune": "fastdecode",  # about a third less time to decode, for a tenth more bytes
        "crf": str(encoding.crf),
        "preset": encoding.preset,
        "g": str(encoding.key_frames),
        "x264-params": "open-gop=0:log-level=none",
    }
    stream = container.add_stream("libx264", rate=first.rate or Fraction(25), options=options)
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"  # 4:2:0 has no odd sizes
    stream.codec_context.time_base = first.time_base
    stream.codec_context.thread_count = 1  # files are written side by side
    return stream


def is_being_written(unfinished: Path) -> bool:
    """Whether a living process, here or on another machine, is encoding into this file."""
    try:
        with open(unfinished, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:  # locked, or a drive that cannot say
        return True
