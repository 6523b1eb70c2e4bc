"""Which frames of a video make its clip. Every function returns plain lists of frame indices."""

import numpy as np

SAMPLES = ("uniform", "rand")
GAP = 1  # seconds between two clips of a narrated video
CLIP_SECONDS = (3, 5)  # the shortest and the longest of them
TOLERANCE = 1e-6  # seconds: the times of frames are rounded


def part_bounds(num_parts: int, length: int) -> np.ndarray:
    """The bounds of `num_parts` nearly equal parts of [0, length), int64 [num_parts + 1]."""
    return np.linspace(0, length, num_parts + 1).astype(np.int64)


def sample_frames(
    num_frames: int,
    vlen: int,
    sample: str = "uniform",
    rng: np.random.Generator | None = None,
    shift: int | None = None,
) -> list[int]:
    """One frame from each of `min(num_frames, vlen)` equal parts of a video (temporal segment sampling).

    num_frames: frames wanted. vlen: frames the video has.
    sample: "uniform" takes the middle frame of each part, "rand" a random one. The random draw covers the
        whole part, its last frame included, so it also works where a part has a single frame.
    rng: used by "rand"; None draws from a fresh generator.
    shift: if given, the frame `shift` after the start of each part instead (see `window_shifts`).

    Returns indices in ascending order, fewer than `num_frames` when the video is shorter than that.
    Raises ValueError on a video without frames or an unknown `sample`.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; a clip needs at least one frame")
    if vlen < 1:
        raise ValueError(f"cannot choose frames from a video of {vlen} frames")
    if sample not in SAMPLES:
        raise ValueError(f"sample is {sample!r}; expected one of {', '.join(SAMPLES)}")
    bounds = part_bounds(min(num_frames, vlen), vlen)
    starts, ends = bounds[:-1], bounds[1:]
    if shift is not None:
        frames = starts + shift
        if shift < 0 or (frames >= ends).any():
            raise ValueError(f"shift {shift} leaves its part of a video of {vlen} frames")
    elif sample == "rand":
        rng = np.random.default_rng() if rng is None else rng
        frames = rng.integers(starts, ends)
    else:
        frames = (starts + ends - 1) // 2
    return frames.tolist()


def linspace_frames(num_frames: int, vlen: int) -> list[int]:
    """Evenly spaced frames from the first to the last, as the official feature extraction takes them.

    Always `num_frames` of them: a short video repeats frames.
    """
    if vlen < 1:
        raise ValueError(f"cannot choose frames from a video of {vlen} frames")
    return np.linspace(0, vlen - 1, num_frames).astype(np.int64).tolist()


def window_shifts(num_frames: int, vlen: int, stride: int) -> list[int]:
    """The shifts 0, stride, 2·stride, … at which sliding-window evaluation reads one video.

    They stay below int(vlen / (parts + 1)) with parts = min(num_frames, vlen). A video too short for
    any gets the one window at shift 0.
    """
    if stride < 1:
        raise ValueError(
            f"the sliding window stride is {stride}; it must be at least 1 (or -1 for no windows)"
        )
    limit = int(vlen / (min(num_frames, vlen) + 1))
    return list(range(0, max(limit, 1), stride))


def frames_between(times: np.ndarray, start: float, end: float) -> range:
    """The frames that appear from `start` on and before `end`.

    times: when each frame of the video appears, in seconds since the first, float [N]; never falling.

    Where none does, it is the one frame that is still shown then, so that the range is never empty.
    """
    first, stop = (int(i) for i in np.searchsorted(times, np.array([start, end]) - TOLERANCE))
    if first == stop:
        first, stop = frame_at(times, start), frame_at(times, start) + 1
    return range(first, stop)


def frame_at(times: np.ndarray, time: float) -> int:
    """The frame that is shown at a time; `times` as for `frames_between`."""
    return max(int(np.searchsorted(times, time + TOLERANCE, side="right")) - 1, 0)


def span_frames(
    times: np.ndarray,
    duration: float,
    start: float,
    end: float,
    num_frames: int,
    sample: str = "rand",
    rng: np.random.Generator | None = None,
) -> list[int]:
    """One frame from each of `num_frames` equal parts of the span from `start` to `end`, in seconds.

    times: see `frames_between`. duration: seconds at which the last frame ends.

    At a constant rate they are the frames of the official release, which multiplies seconds by that rate; at
    another, seconds become fractions of frames by the times of the frames around them. The indices stay
    inside the video; a span shorter than `num_frames` frames gives fewer.
    """
    count = len(times)
    rate = count / max(duration, TOLERANCE)
    if np.abs(times * rate - np.arange(count)).max() < 0.5:
        first, length = start * rate, rate * (end - start)
    else:
        bounds = np.array([*times, max(duration, times[-1])])
        first, stop = np.interp([start, end], bounds, np.arange(count + 1))
        length = stop - first + TOLERANCE
    first = min(int(first), count - 1)
    length = min(max(1, int(length)), count - first)
    return [first + i for i in sample_frames(num_frames, length, sample, rng)]


def draw_segment(duration: float, num_clips: int, rng: np.random.Generator) -> tuple[float, float]:
    """Start and end, in seconds, of a random segment of a narrated video: clips of 3, 4 or 5 s and their
    gaps (TVTSv2, section 3).

    A video too short for it is taken whole, but for its last second.
    """
    duration = int(duration)
    length = int(rng.integers(CLIP_SECONDS[0], CLIP_SECONDS[1] + 1)) * num_clips + GAP * (num_clips - 1)
    if duration < length + 1:
        return 0.0, float(max(duration - 1, 1))
    start = int(rng.integers(0, duration - length)) + float(rng.random())
    return start, min(duration - 1, start + length)


def clip_times(start: float, end: float, num_clips: int) -> list[tuple[float, float]]:
    """Equal clips of a segment with gaps of a second between them (none where there is no time for them)."""
    gap = GAP if end - start > GAP * (num_clips - 1) else 0
    length = (end - start - gap * (num_clips - 1)) / num_clips
    starts = [start + k * (length + gap) for k in range(num_clips)]
    return [(s, s + length) for s in starts]
