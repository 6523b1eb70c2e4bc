"""Subtitles as words with times: .vtt and .srt, YouTube's json3, and Whisper's JSON.

Where a file has a time for each word that is its time. Elsewhere the words of a line are spread evenly over
the line, which ends where the next one begins, if that is earlier. What is no speech is left out: marks of
sounds in brackets ("[Music]"), notes (♪) and marks of speakers (>>).
"""

import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from data_loader.asr import fix_text

FORMS = (".vtt", ".srt")
NO_SPEECH = re.compile(r"\[[^\[\]]*\]|[♪♫]|>>")
WORD_TIME = re.compile(r"<((?:\d+:)?\d\d:\d\d\.\d{3})>")
SRT_TIMES = re.compile(r"\s*\d+:\d\d?:\d\d?[,.]\d+\s*-->\s*\d+:\d\d?:\d\d?[,.]\d+")
TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # of a style; the second are those of .srt
FLASH = 0.05  # seconds; YouTube's captions roll up by a caption so short between any two


class Word(NamedTuple):
    text: str
    time: float  # when it begins, in seconds


class Said(NamedTuple):
    """A word, or words, and from when to when they are said, in seconds."""

    start: float
    end: float
    text: str


def read_subtitles(path: Path) -> list[Word]:
    """The words of a .vtt or .srt file, in the order of their times.

    Raises ValueError for what is no such file, is broken anywhere, or holds no words, and where webvtt-py is
    missing; OSError.
    """
    webvtt = import_webvtt()
    text = path.read_bytes().decode("utf-8-sig")
    form = path.suffix.lower().removeprefix(".")
    if form == "srt":  # which is read leniently: a caption with broken times would be missing
        for number, line in enumerate(io.StringIO(text), start=1):
            if "-->" in line and not SRT_TIMES.match(line):
                raise ValueError(f"is no srt file: line {number}, {line.strip()!r}, has broken times")
    try:
        captions = webvtt.WebVTT.from_buffer(io.StringIO(text), format=form, strict=True)
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError) as error:
        raise ValueError(f"is no {form} file: {error}") from error
    cues = [(_clock(str(c.start_time)), _clock(str(c.end_time)), c.raw_text.split("\n")) for c in captions]
    return timed_words(piece for cue in unrolled(cues) for piece in _said_in_cue(*cue))


def words_of(content: dict[str, Any]) -> list[Word] | None:
    """The words of Whisper's JSON ("segments") or YouTube's ("events"), in the order of their times.

    None for another form. Raises ValueError for a time that is none, and where there are no words.
    """
    for key, said in (("segments", _whisper), ("events", _json3)):
        if isinstance(content.get(key), list):
            return timed_words(said(content[key]))
    return None


def timed_words(pieces: Iterable[Said]) -> list[Word]:
    """Raises ValueError where there is none."""
    ordered = sorted(pieces, key=lambda piece: piece.start)
    following = [*(piece.start for piece in ordered), math.inf][1:]
    words = []
    for piece, next_start in zip(ordered, following, strict=True):
        end = max(piece.start, piece.end)
        if next_start > piece.start:
            end = min(end, next_start)
        texts = [fixed for text in NO_SPEECH.sub(" ", piece.text).split() if (fixed := fix_text(text))]
        words += [
            Word(text, piece.start + k / len(texts) * (end - piece.start)) for k, text in enumerate(texts)
        ]
    if not words:
        raise ValueError("no words in it")
    return words


def unrolled(cues: Sequence[tuple[float, float, list[str]]]) -> Iterator[tuple[float, float, list[str]]]:
    """Cues, (start, end, lines), without the lines that are on the screen already.

    YouTube's own captions roll up: a line is shown with the next one below it, and would be read twice. They
    are known by times of words, or by cues of a hundredth of a second in between; in other files a line
    that comes again is said again.
    """
    rolls = any(end - start < FLASH or any(map(WORD_TIME.search, lines)) for start, end, lines in cues)
    shown: list[str] = []
    until = -math.inf
    for start, end, lines in cues:
        lines = [line for line in lines if line.strip()]
        plain = [TAG.sub("", line).strip() for line in lines]
        again = 0
        if rolls and start - until < FLASH:
            most = min(len(shown), len(plain))
            again = next((n for n in range(most, 0, -1) if shown[-n:] == plain[:n]), 0)
        yield start, end, lines[again:]
        shown, until = plain, end


def _said_in_cue(start: float, end: float, lines: Sequence[str]) -> Iterator[Said]:
    """The parts of a cue between times of words: [text, time, text, …]."""
    first, *rest = WORD_TIME.split(" ".join(lines))
    starts = [start, *map(_clock, rest[::2]), end]
    for k, text in enumerate([first, *rest[1::2]]):
        yield Said(starts[k], starts[k + 1], html.unescape(TAG.sub("", text)))


def _whisper(segments: Sequence[Any]) -> Iterator[Said]:
    """Segments {start, end, text}, or with the times of their words {words: [{word, start, end}]}.

    A word without a time (whisperX has them) begins with the one before it.
    """
    for number, segment in enumerate(segments):
        where = f"segment {number}"
        start, end = _seconds(segment, "start", where), _seconds(segment, "end", where)
        words = segment.get("words")
        if not words:
            yield Said(start, end, _text(segment, "text", where))
            continue
        if not isinstance(words, list) or not all(isinstance(word, dict) for word in words):
            raise ValueError(f"{where}: its words are no list of {{word, start, end}}")
        time, said = start, []
        for k, word in enumerate(words):
            where = f"segment {number}, word {k}"
            time = _seconds(word, "start", where) if "start" in word else time
            said.append(Said(time, time, _text(word, "word", where)))
        yield from joined(said)


def _json3(events: Sequence[Any]) -> Iterator[Said]:
    """Events {tStartMs, dDurationMs, segs: [{utf8, tOffsetMs}]}, in milliseconds; those without segs are of
    the layout."""
    for number, event in enumerate(events):
        where = f"event {number}"
        segments = event.get("segs") if isinstance(event, dict) else None
        if not segments:
            continue
        if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
            raise ValueError(f"{where}: its segs are no list of {{utf8, tOffsetMs}}")
        start = _seconds(event, "tStartMs", where, 1e-3)
        end = start + _seconds({"dDurationMs": 0, **event}, "dDurationMs", where, 1e-3)
        offsets = [_seconds({"tOffsetMs": 0, **segment}, "tOffsetMs", where, 1e-3) for segment in segments]
        ends = [*(start + offset for offset in offsets[1:]), end]
        texts = [_text({"utf8": "", **segment}, "utf8", where) for segment in segments]
        yield from joined(
            [Said(start + offset, to, text) for offset, to, text in zip(offsets, ends, texts, strict=True)]
        )


def joined(pieces: Sequence[Said]) -> list[Said]:
    """Pieces of a line, those that go on with a word put to it: " well", "-known".

    Where pieces begin with spaces at all (whisperX's do not), one that does not goes on.
    """
    spaced = any(piece.text[:1].isspace() for piece in pieces[1:])
    whole: list[Said] = []
    for piece in pieces:
        between = whole[-1].text[-1:] + piece.text[:1] if whole else " "
        if spaced and not any(map(str.isspace, between)):
            whole[-1] = Said(whole[-1].start, piece.end, whole[-1].text + piece.text)
        else:
            whole.append(piece)
    return whole


def _clock(text: str) -> float:
    """00:01:02.500 or 01:02.500 in seconds."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _seconds(holder: Any, key: str, where: str, unit: float = 1.0) -> float:
    value = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{where}: {key} is {value!r}, no time")
    return value * unit


def _text(holder: dict[str, Any], key: str, where: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} is {value!r}, no text")
    return value


def import_webvtt() -> ModuleType:
    """Raises ValueError with what to install."""
    try:
        import webvtt
    except ImportError as error:
        raise ValueError(".vtt and .srt need the package webvtt-py: pip install webvtt-py") from error
    return webvtt
