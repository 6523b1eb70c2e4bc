"""Opening a video file with PyAV."""

from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.stream import Disposition

from .errors import VideoReadError


@contextmanager
def open_video(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its best video stream. What FFmpeg raises inside becomes a VideoReadError.

    Nothing else does: another error in there is a fault of the program, not of the file.
    """
    try:
        container = av.open(path, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError: PyAV's own, on odd formats
        raise unreadable(path, error) from error
    with container:
        try:
            yield container, decodable_stream(path, container)
        except av.error.FFmpegError as error:
            raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> VideoReadError:
    """FFmpeg's error as a VideoReadError."""
    hint = ": damaged, cut off, or not a video" if isinstance(error, av.error.InvalidDataError) else ""
    return VideoReadError(path, f"{getattr(error, 'strerror', None) or error} (FFmpeg){hint}")


def decodable_stream(path: str, container: av.container.InputContainer) -> av.VideoStream:
    """The stream to read, its decoder set up. Raises VideoReadError where there is none."""
    stream = best_stream(container)
    if stream is None:
        kinds = sorted({s.type for s in container.streams}) or ["nothing: cut off?"]
        raise VideoReadError(path, f"has no video stream (it holds {', '.join(kinds)})")
    if stream.codec_context is None:
        raise VideoReadError(path, "no decoder for its video stream")
    stream.codec_context.thread_count = 1  # more loader workers pay, more threads do not
    return stream


def best_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that FFmpeg's own choice gives; cover pictures of sound files are none."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in videos else next(iter(videos), None)
