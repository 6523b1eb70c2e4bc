"""Opening a video file with PyAV."""

from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.stream import Disposition

from .errors import VideoReadError


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
        hint = ": damaged, cut off, or not a video" if isinstance(error, av.error.InvalidDataError) else ""
        raise VideoReadError(path, f"{getattr(error, 'strerror', None) or error} (FFmpeg){hint}") from error


def best_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that FFmpeg's own choice gives; cover pictures of sound files are none."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in videos else next(iter(videos), None)
