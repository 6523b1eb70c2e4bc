"""Cutting videos into clips: whole ones, spans of a list, windows of time, shots."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from data_loader.failures import Failure
from data_loader.sampling import TOLERANCE, frame_at, linspace_frames
from data_loader.spans import Span
from data_loader.video import FRAME_RATE, Video, VideoReadError, file_state, open_video
from downstream.embedding.clips import Clip
from downstream.inputs.shots import find_shots

CRUMB = 0.1  # of a window: a rest below it joins the window before
OPENED_AT_ONCE = 8  # files


@dataclass(frozen=True)
class Cutting:
    """How each video, or span of a list, becomes clips, and which frames of them the model sees.

    num_frames: of a clip. window, stride: seconds; a clip of `window` seconds every `stride`, None for no
    windows. fps: frames a second within a window; None spreads them evenly from its first to its last.
    shots: cut where the picture changes, and then into windows. reader, timeout: as in `open_video`;
    folder_fps: its frame_rate.
    """

    num_frames: int
    window: float | None = None
    stride: float | None = None
    fps: float | None = None
    shots: bool = False
    reader: str = "pyav"
    timeout: float | None = None
    folder_fps: float = FRAME_RATE

    @classmethod
    def of(
        cls,
        most_frames: int,
        window: float | None,
        stride: float | None,
        frames: int | None,
        fps: float | None,
        shots: bool = False,
        reader: str = "pyav",
        timeout: float | None = None,
        folder_fps: float = FRAME_RATE,
    ) -> "Cutting":
        """What the options ask for; `most_frames` is what the model takes at once.

        With `fps` alone a window lasts as long as its frames; with `window` it has as many as pass in it.
        Raises ValueError, with what to write, where they do not go together.
        """
        if frames is not None and not 1 <= frames <= most_frames:
            raise ValueError(f"--frames {frames}: this model takes 1 to {most_frames} frames at once")
        num_frames = frames or most_frames
        if fps is not None and window is None:
            window = num_frames / fps
        elif fps is not None and window is not None:
            asked = max(1, math.ceil(window * fps - TOLERANCE))
            if asked > most_frames or (frames is not None and frames != asked):
                raise ValueError(
                    f"a window of {window:g} s has {asked} frames at {fps:g} a second, not {num_frames}: "
                    f"take --fps {num_frames / window:g}, or no --window, for one of {num_frames / fps:g} s"
                )
            num_frames = asked
        if stride is not None and window is None:
            raise ValueError("--stride is the time between two windows: give --window (or --fps), too")
        return cls(num_frames, window, stride or window, fps, shots, reader, timeout, folder_fps)

    def frames(self, clip: Clip, video: Video) -> list[int]:
        """`num_frames` frames of the open file for a clip; a short one repeats some.

        At a rate they are those shown every 1/fps seconds from its start; beyond its end, its last.
        """
        if clip.span is None:
            return linspace_frames(self.num_frames, len(video))
        frames = clip.span.frames(video.times)
        if self.fps is None:
            return [frames[i] for i in linspace_frames(self.num_frames, len(frames))]
        wanted = clip.span.start + np.arange(self.num_frames) / self.fps
        return [min(max(frame_at(video.times, time), frames[0]), frames[-1]) for time in wanted.tolist()]


def find_clips(wanted: Sequence[Clip], cutting: Cutting) -> tuple[list[Clip], list[Failure]]:
    """The clips of videos or spans, in their order, and why some have none.

    Windows need the times of a file's frames, so each is opened once; nothing is decoded, but for shots.
    wanted: of each file, or span, a clip without the file's state.
    """
    files: dict[str, list[Clip]] = {}
    for clip in wanted:
        files.setdefault(clip.path, []).append(clip)
    pool = ThreadPoolExecutor(OPENED_AT_ONCE)
    try:
        looked = pool.map(lambda clips: _find(clips, cutting), files.values())
        bar = tqdm(looked, total=len(files), unit="video", desc="clips", leave=False, disable=None)
        found = list(bar)
    finally:  # Ctrl-C does not wait for those to come
        pool.shutdown(cancel_futures=True)
    pieces = dict(zip(files, map(iter, found), strict=True))
    clips: list[Clip] = []
    failures: list[Failure] = []
    for clip in wanted:  # of each file the answers come in the order of its clips
        of_clip = next(pieces[clip.path])
        if isinstance(of_clip, Failure):
            failures.append(of_clip)
        else:
            clips += of_clip
    return clips, list(dict.fromkeys(failures))


def _find(wanted: Sequence[Clip], cutting: Cutting) -> list[list[Clip] | Failure]:
    """For each clip of one file what it is cut into. Errors are given back, so that all files get their
    turn."""
    path = wanted[0].path
    try:
        size, modified = file_state(path)
        clips = [replace(clip, size_bytes=size, modified_ns=modified) for clip in wanted]
        if not (
            cutting.window or cutting.shots or any(clip.span and clip.span.end == math.inf for clip in clips)
        ):
            return [[clip] for clip in clips]
        with open_video(path, timeout=cutting.timeout, frame_rate=cutting.folder_fps) as video:
            shots = find_shots(video) if cutting.shots else [Span(0.0, video.duration)]
            return [_cut(replace(clip, duration=video.duration), video, shots, cutting) for clip in clips]
    except VideoReadError as error:
        return [Failure.of(error)] * len(wanted)


def _cut(clip: Clip, video: Video, shots: Sequence[Span], cutting: Cutting) -> list[Clip] | Failure:
    if clip.span is not None:
        if fault := clip.fault(video.duration):
            return Failure(clip.path, fault)
        shots = [Span(clip.span.start, min(clip.span.end, video.duration))]
    if cutting.window is None:
        return [replace(clip, span=shot) for shot in shots]
    spans = [span for shot in shots for span in cut(shot, video.times, cutting.window, cutting.stride)]
    return [replace(clip, span=span) for span in spans]


def cut(piece: Span, times: np.ndarray, window: float, stride: float | None = None) -> list[Span]:
    """The windows of a piece in which frames appear at `times`: `window` seconds, one every `stride`.

    They follow each other until one comes to the end of the piece, where it ends, too. A rest under a tenth
    of a window joins the last.
    """
    stride = stride or window
    length = piece.end - piece.start
    at_end = math.ceil((length - (1 + CRUMB) * window) / stride)  # the first that comes there
    last = max(0, min(at_end, math.ceil((length - CRUMB * window) / stride) - 1))
    last_end = last * stride + window
    if last_end > length - CRUMB * window:
        last_end = length
    inside = times[(times >= piece.start - TOLERANCE) & (times < piece.end - TOLERANCE)] - piece.start
    latest = np.minimum((inside + TOLERANCE) // stride, last).astype(np.int64)  # window that began last
    numbers = np.empty(0, np.int64)
    for back in range(math.ceil(window / stride)):
        before = latest - back
        until = np.where(before == last, last_end, before * stride + window)
        numbers = np.union1d(numbers, before[(before >= 0) & (inside < until - TOLERANCE)])
    spans = []
    for k in numbers.tolist() or [0]:  # without any, one frame stays for all of the piece
        end = last_end if k == last else k * stride + window
        spans.append(Span(piece.start + k * stride, piece.end if end >= length else piece.start + end))
    return spans
