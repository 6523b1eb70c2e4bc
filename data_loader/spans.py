"""Spans of videos, in seconds: how lists write them, and which frames of a video are theirs."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_loader.sampling import frames_between

CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:\.\d+)?)")  # hours:minutes:seconds
OVERLAP = 0.1  # seconds of two spans that count as rounding: the second follows the first
OVERHANG = 1.0  # seconds by which a span may end after its video: lists round lengths up


class Span(NamedTuple):
    """A piece of a video, from `start` on and before `end`, in seconds since its first frame.

    An end of infinity is that of the video.
    """

    start: float = 0.0
    end: float = math.inf

    def __str__(self) -> str:
        return f"{self.start:g} s to {'the end' if self.end == math.inf else f'{self.end:g} s'}"

    def frames(self, times: np.ndarray) -> range:
        """Its frames; at least one, see `frames_between`. times: float64 [N], those of the video's frames."""
        return frames_between(times, self.start, self.end)

    def fault(self, duration: float) -> str:
        """Why it is no piece of a video that lasts `duration` seconds; empty where it is one."""
        if self.start < duration and (self.end == math.inf or self.end <= duration + OVERHANG):
            return ""
        return f"the span {self} lies outside the video, which lasts {duration:g} s"


def parse_seconds(value: Any) -> float | None:
    """A time as lists have it, a number of seconds or 00:01:02.5; None for an empty cell.

    Raises ValueError for anything else: NaN, infinity, what is below 0, a minute of 60 seconds or more.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e18 else math.nan  # a larger whole number may be no float
    elif isinstance(value, str) and (found := CLOCK.fullmatch(value.strip())):
        hours, minutes, rest = int(found[1] or 0), int(found[2]), float(found[3])
        if rest < 60 and (minutes < 60 or not found[1]):
            seconds = 3600 * hours + 60 * minutes + rest
    elif isinstance(value, str) and re.fullmatch(r"\s*\d*\.?\d+(e[+-]?\d+)?\s*", value):
        seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{value!r} is no time: write seconds (62.5) or hours:minutes:seconds (00:01:02.5)")
    return seconds


def read_spans(
    starts: Sequence[Any] | None, ends: Sequence[Any] | None, where: Callable[[int], str]
) -> np.ndarray:
    """The spans of a list's rows, float64 [N, 2], from its columns of starts and ends.

    An empty start, or no such column, is that of the video; so with ends. `where` names a row in messages.
    Raises ValueError, which names the row, for what is no time and for a span that ends before it begins.
    """
    count = len(starts if starts is not None else ends or [])
    spans = np.empty((count, 2))
    for row in range(count):
        try:
            start = parse_seconds(starts[row]) if starts is not None else None
            end = parse_seconds(ends[row]) if ends is not None else None
        except ValueError as error:
            raise ValueError(f"{where(row)}: {error}") from error
        span = Span(0.0 if start is None else start, math.inf if end is None else end)
        if span.end <= span.start:
            raise ValueError(f"{where(row)}: the span {span} does not end after its start")
        spans[row] = span
    return spans


def following_spans(spans: np.ndarray, number: int) -> np.ndarray:
    """All runs of `number` spans that follow one another, int64 [runs, number], into `spans`.

    spans: float64 [N, 2] of one video, in the order of their starts. The next of a span is the first that
    does not begin before its end; what begins earlier overlaps with it, and is no part of that run. So a
    span may be in several runs, or in none.
    """
    starts, ends = spans[:, 0], spans[:, 1]
    following = np.searchsorted(starts, ends - OVERLAP)
    following = np.maximum(following, np.arange(len(spans)) + 1)  # where spans are shorter than OVERLAP
    following = np.append(following, len(spans))  # behind the last one there is none
    runs = [np.arange(len(spans))]
    for _ in range(number - 1):
        runs.append(following[runs[-1]])
    found = np.stack(runs, axis=1)
    return found[found[:, -1] < len(spans)]
