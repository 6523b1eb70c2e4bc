"""Speech transcripts (ASR): from YT-Temporal's JSON file to words that have times and read well.

Recognised words carry times but errors; the denoised text reads well but has no times. Dynamic time
warping over edit distance hands each denoised word the time of a recognised one (the YT-Temporal recipe).
"""

import hashlib
import json
import math
import os
import string
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import ftfy
import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
UNREACHED = np.iinfo(np.int32).max // 2
CACHE_VERSION = 1
MIN_SECONDS = 2  # below that no segment is left once the last second is cut off
MAX_SECONDS = 1_000_000  # eleven days: no video


@lru_cache(maxsize=100_000)
def fix_text(text: str) -> str:
    """ftfy's repair of mis-decoded text, remembered: transcripts repeat few words many times."""
    return text if text.isascii() and text.isalnum() else ftfy.fix_text(text)


def clean_subtitles(subtitles: Sequence[dict] | Sequence[str]) -> list:
    """The recognised words without HTML entities (`&…`, `…;`), text repaired, words emptied by that dropped.

    subtitles: {"word": str, "time": seconds} each, or bare words; the same kind is returned.
    """
    cleaned = []
    for item in subtitles:
        word = item if isinstance(item, str) else item["word"]
        if word.startswith("&") or word.endswith(";"):
            continue
        word = fix_text(word)
        if word:
            cleaned.append(word if isinstance(item, str) else {**item, "word": word})
    return cleaned


def align_words(raw: Sequence[str], denoised: Sequence[str]) -> list[str]:
    """The denoised words that belong to each raw word, joined by spaces: one string a raw word, maybe empty.

    raw: cleaned recognised words. denoised: words of the denoised text (empty strings are words too).
    Cost of a match: edit distance, without case and punctuation. Warping stays in the band
    −r ≤ j − i < r with r = int(max(0.1·len(raw), 32)), and of the denoised words only the first
    len(raw) + r are used. A denoised word goes to the first raw word on its path.
    """
    if not raw or not denoised:
        return [""] * len(raw)
    radius = int(max(0.1 * len(raw), 32))
    words: list[list[str]] = [[] for _ in raw]
    for i, j in _warping_starts(raw, denoised[: len(raw) + radius], radius):
        words[i].append(denoised[j])
    return [" ".join(group) for group in words]


def _warping_starts(raw: Sequence[str], denoised: Sequence[str], radius: int) -> list[tuple[int, int]]:
    """(i, j) for each denoised word j and the first raw word i on the cheapest path, in order.

    The official code lets a path leave the band at 9999 a cell, which pays only where the end lies
    outside. It does so at either corner: then the surplus raw words all meet the last denoised word, or
    the surplus denoised word (at most one, by the cut above) meets the last raw word.
    """
    outside = denoised[len(raw) + radius - 1 :]
    raw, denoised = raw[: len(denoised) + radius], denoised[: len(raw) + radius - 1]
    totals = _band_totals(raw, denoised, radius)
    i, j = len(raw) - 1, len(denoised) - 1
    first = [0] * len(denoised)
    while i > 0 or j > 0:
        first[j] = i
        # totals row i + 1 holds columns i − radius … i + radius; a row and a column of UNREACHED lie around
        k = j - i + radius + 1
        diagonal, up, left = totals[i, k], totals[i, k + 1], totals[i + 1, k - 1]
        if diagonal <= up and diagonal <= left:
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1
    first[0] = 0
    starts = [(first[j], j) for j in range(len(denoised))]
    return starts + [(len(raw) - 1, len(denoised) + k) for k in range(len(outside))]


def _band_totals(raw: Sequence[str], denoised: Sequence[str], radius: int) -> np.ndarray:
    """Cost of the cheapest path to each cell of the band, int32 [len(raw) + 1, 2·radius + 2].

    Cell (i, j) stands at [i + 1, j − i + radius + 1]. A row at a time: with m the cheaper of the two ways
    in from the row above plus the cell's own cost, and C the running sum of costs along the row,
    total[j] = C[j] + min over k ≤ j of (m[k] − C[k]), which is one running minimum.
    """
    distances, raw_ids, denoised_ids = _unique_distances(raw, denoised)
    width = 2 * radius
    totals = np.full((len(raw) + 1, width + 2), UNREACHED, np.int32)
    totals[0, radius + 1] = 0  # the way into cell (0, 0): a virtual diagonal step
    for i, row in enumerate(raw_ids):
        low, high = max(0, i - radius), min(len(denoised), i + radius)
        a = low - i + radius + 1
        b = a + high - low
        cost = distances[row, denoised_ids[low:high]]
        entry = np.minimum(totals[i, a:b], totals[i, a + 1 : b + 1])
        reach = np.cumsum(cost, dtype=np.int32)
        totals[i + 1, a:b] = reach + np.minimum.accumulate(entry + cost - reach)
    return totals


def _unique_distances(
    raw: Sequence[str], denoised: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edit distances between the distinct words of both sides, and which row or column each word has."""

    def index(words: Sequence[str]) -> tuple[list[str], np.ndarray]:
        ids: dict[str, int] = {}
        where = [ids.setdefault(w.lower().translate(NO_PUNCTUATION), len(ids)) for w in words]
        return list(ids), np.asarray(where)

    raw_words, raw_ids = index(raw)
    denoised_words, denoised_ids = index(denoised)
    distances = cdist(raw_words, denoised_words, scorer=Levenshtein.distance, dtype=np.int32)
    return distances, raw_ids, denoised_ids


class TranscriptError(ValueError):
    """A transcript that gives no sample. The message is the reason."""


@dataclass(frozen=True)
class Transcript:
    """What is said in a video, and when.

    words: the denoised words that belong to each recognised word, "" where there are none.
    times: seconds of each recognised word; NaN (never inside a clip) where the file gives none.
    duration: whole seconds of the video.
    problems: what was mended, see `read_transcript`.
    """

    words: list[str]
    times: list[float]
    duration: int
    problems: tuple[str, ...] = ()

    def text(self, start: float, end: float) -> str:
        """What is said between two times in seconds, both exclusive; "" for silence."""
        return " ".join(w for w, t in zip(self.words, self.times, strict=True) if w and start < t < end)


def read_transcript(source: str | Path | dict) -> Transcript:
    """A transcript from its JSON file, or from what such a file holds, denoised text aligned.

    The keys: `subtitles` (a list of {`word`, `time` in seconds}), `denoised` (a list of {`cleanasr`}) and
    `info.duration` (seconds). What is malformed:

    - file unreadable or not JSON, no words, no denoised text, duration missing, no number or under 2 s:
      TranscriptError, since nothing can be learned from it or its times cannot be placed in the video;
    - a subtitle without a word: left out ("subtitles without a word");
    - a word without a time: kept for the alignment, in no clip ("words without a time");
    - times out of order: words keep their order in the file ("times out of order");
    - words after the end: in no clip, as clips end before it ("words after the end").
    """
    content = source if isinstance(source, dict) else _load_json(source)
    duration = _duration(content)
    subtitles, problems = _subtitles(content)
    subtitles = clean_subtitles(subtitles)
    if not subtitles:
        raise TranscriptError("no words in 'subtitles'")
    denoised = _denoised_words(content)
    times = [s["time"] for s in subtitles]
    known = [t for t in times if not math.isnan(t)]
    if known != sorted(known):
        problems.append("times out of order")
    if any(t > duration + 1 for t in known):
        problems.append("words after the end")
    words = align_words([s["word"] for s in subtitles], denoised)
    return Transcript(words, times, duration, tuple(problems))


def load_transcript(path: str | Path, cache_dir: str | Path | None = None) -> Transcript:
    """`read_transcript`, with the aligned result kept in `cache_dir` when one is given.

    A cached transcript is known by its file's path, size and time of change. Processes may share the folder.
    """
    if cache_dir is None:
        return read_transcript(path)
    cached = _cache_file(path, Path(cache_dir))
    try:
        return transcript_from_json(json.loads(zlib.decompress(cached.read_bytes())))
    except (OSError, ValueError, zlib.error):  # not there, or damaged: made anew
        transcript = read_transcript(path)
    temporary = cached.with_name(f"{cached.name}.{os.getpid()}")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(zlib.compress(json.dumps(transcript_to_json(transcript)).encode()))
        temporary.replace(cached)
    except OSError as error:  # a full disk costs time, not the training
        warnings.warn(f"aligned transcripts cannot be kept in {cache_dir}: {error}", stacklevel=2)
    return transcript


def transcript_to_json(transcript: Transcript) -> dict:
    """An aligned transcript as JSON, null for a time unknown."""
    times = [None if math.isnan(t) else t for t in transcript.times]
    return {**asdict(transcript), "times": times}


def transcript_from_json(metadata: dict) -> Transcript:
    """The other way round. Raises TranscriptError for a file of another form."""
    try:
        times = [math.nan if t is None else float(t) for t in metadata["times"]]
        words, problems = metadata["words"], tuple(metadata["problems"])
    except (KeyError, TypeError, ValueError) as error:
        raise TranscriptError(repr(error)) from error
    if not isinstance(words, list) or len(words) != len(times) or not all(isinstance(w, str) for w in words):
        raise TranscriptError("its words and times do not match")
    return Transcript(words, times, check_duration(metadata.get("duration")), problems)


def _cache_file(path: str | Path, cache_dir: Path) -> Path:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise TranscriptError(f"{error.strerror or error}") from error
    identity = f"{CACHE_VERSION}\n{os.path.abspath(path)}\n{stat.st_size}\n{stat.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return cache_dir / digest[:2] / digest[2:]


def _load_json(path: str | Path) -> dict:
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise TranscriptError(f"{error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not text, or nested without end
        raise TranscriptError(f"is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise TranscriptError("holds no JSON object")
    return content


def _duration(content: dict) -> int:
    info = content.get("info")
    return check_duration(info.get("duration") if isinstance(info, dict) else None)


def check_duration(value: object) -> int:
    """Whole seconds of a video that gives a sample. Raises TranscriptError."""
    duration = _number(value)
    if math.isnan(duration):
        raise TranscriptError("'info.duration' is missing or no number of seconds")
    if duration < MIN_SECONDS:
        raise TranscriptError(f"'info.duration' is {duration:g} s; at least {MIN_SECONDS} s are needed")
    if duration > MAX_SECONDS:
        raise TranscriptError(f"'info.duration' is {duration:g} s, more than {MAX_SECONDS}")
    return int(duration)


def _subtitles(content: dict) -> tuple[list[dict], list[str]]:
    """The subtitles that have a word, times as floats, and what was wrong with them."""
    listed = content.get("subtitles")
    listed = listed if isinstance(listed, list) else []
    worded = [s for s in listed if isinstance(s, dict) and isinstance(s.get("word"), str)]
    subtitles = [{"word": s["word"], "time": _number(s.get("time"))} for s in worded]
    problems = []
    if len(worded) < len(listed):
        problems.append("subtitles without a word")
    if any(math.isnan(s["time"]) for s in subtitles):
        problems.append("words without a time")
    return subtitles, problems


def _denoised_words(content: dict) -> list[str]:
    """The words of all `cleanasr` texts, split at single spaces; empty strings take part."""
    listed = content.get("denoised")
    given = [d.get("cleanasr") for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    texts = [fix_text(t) for t in given if isinstance(t, str)]
    if not any(t.strip() for t in texts):
        raise TranscriptError("no denoised text in 'denoised'")
    return [word for text in texts for word in text.split(" ")]


def _number(value: object) -> float:
    """A finite number, given as one or in text; NaN for anything else."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
