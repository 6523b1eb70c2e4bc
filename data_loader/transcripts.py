"""Transcripts of videos: YT-Temporal's JSON files, and subtitles as others have them."""

import hashlib
import json
import math
import os
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_loader import subtitles
from data_loader.asr import align_words, clean_subtitles, fix_text

CACHE_VERSION = 1
MIN_SECONDS = 2  # below that no segment is left once the last second is cut off
MAX_SECONDS = 1_000_000  # eleven days: no video
LATE_WORDS = "words after the end"
OF_VIDEO = "video"


class TranscriptError(ValueError):
    """A transcript that gives no sample. The message is the reason."""


@dataclass(frozen=True)
class Transcript:
    """What is said in a video, and when.

    words: the denoised words that belong to each recognised word, "" where there are none.
    times: seconds of each recognised word; NaN (never inside a clip) where the file gives none.
    duration: whole seconds of the video; None where the file does not say.
    problems: what was mended, see `read_transcript`.
    """

    words: list[str]
    times: list[float]
    duration: int | None
    problems: tuple[str, ...] = ()

    def text(self, start: float, end: float) -> str:
        """What is said between two times in seconds, both exclusive; "" for silence."""
        return " ".join(w for w, t in zip(self.words, self.times, strict=True) if w and start < t < end)

    def outlasts(self, duration: float) -> bool:
        """Whether a word comes more than a second after the end of the video."""
        return any(t > duration + 1 for t in self.times)


def read_transcript(source: str | Path | dict) -> Transcript:
    """A transcript from its file, or from what a JSON file holds.

    Subtitles (.vtt, .srt, YouTube's json3) and Whisper's JSON are read as `data_loader.subtitles` says; they
    do not say how long the video is. What else is JSON is YT-Temporal's form, whose denoised text is aligned.
    Its keys: `subtitles` (a list of {`word`, `time` in seconds}), `denoised` (a list of {`cleanasr`}) and
    `info.duration` (seconds). What is malformed:

    - file unreadable or not JSON, no words, no denoised text, duration missing, no number or under 2 s:
      TranscriptError, since nothing can be learned from it or its times cannot be placed in the video;
    - a subtitle without a word: left out ("subtitles without a word");
    - a word without a time: kept for the alignment, in no clip ("words without a time");
    - times out of order: words keep their order in the file ("times out of order");
    - words after the end: in no clip, as clips end before it ("words after the end").
    """
    if not isinstance(source, dict) and Path(source).suffix.lower() in subtitles.FORMS:
        return _of_words(_subtitle_file(Path(source)))
    content = source if isinstance(source, dict) else _load_json(source)
    try:
        words = subtitles.words_of(content)
    except ValueError as error:
        raise TranscriptError(str(error)) from error
    if words is not None:
        return _of_words(words)
    duration = _duration(content)
    recognised, problems = _subtitles(content)
    recognised = clean_subtitles(recognised)
    if not recognised:
        raise TranscriptError("no words in 'subtitles'")
    denoised = _denoised_words(content)
    times = [s["time"] for s in recognised]
    known = [t for t in times if not math.isnan(t)]
    if known != sorted(known):
        problems.append("times out of order")
    aligned = align_words([s["word"] for s in recognised], denoised)
    if Transcript(aligned, times, duration).outlasts(duration):
        problems.append(LATE_WORDS)
    return Transcript(aligned, times, duration, tuple(problems))


def _of_words(words: Sequence[subtitles.Word]) -> Transcript:
    return Transcript([word.text for word in words], [word.time for word in words], None)


def _subtitle_file(path: Path) -> list[subtitles.Word]:
    try:
        return subtitles.read_subtitles(path)
    except OSError as error:
        raise TranscriptError(f"{error.strerror or error}") from error
    except ValueError as error:  # also UnicodeDecodeError
        raise TranscriptError(str(error)) from error


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
    """An aligned transcript as JSON, null for a time unknown, "video" for a duration that is the video's."""
    times = [None if math.isnan(t) else t for t in transcript.times]
    duration = OF_VIDEO if transcript.duration is None else transcript.duration
    return {**asdict(transcript), "times": times, "duration": duration}


def transcript_from_json(metadata: dict) -> Transcript:
    """The other way round. Raises TranscriptError for a file of another form."""
    try:
        times = [math.nan if t is None else float(t) for t in metadata["times"]]
        words, problems = metadata["words"], tuple(metadata["problems"])
    except (KeyError, TypeError, ValueError) as error:
        raise TranscriptError(repr(error)) from error
    if not isinstance(words, list) or len(words) != len(times) or not all(isinstance(w, str) for w in words):
        raise TranscriptError("its words and times do not match")
    duration = metadata.get("duration")
    return Transcript(words, times, None if duration == OF_VIDEO else check_duration(duration), problems)


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
