"""What is said in the demo's narrated videos, as a recogniser hears it, and in which files that stands."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_loader.demo_world import DURATION, Event

MISHEARD = {
    "red": "read",
    "blue": "blew",
    "white": "wide",
    "ring": "wring",
    "flashes": "flesh's",
    "slides": "slights",
    "grows": "grass",
}
FILLERS = ("um", "so", "&gt;&gt;", "uh", "like")
CLIP_SECONDS, GAP_SECONDS = 2, 1  # of the four clips that a 12-second YT-Temporal video is cut into
STEP = CLIP_SECONDS + GAP_SECONDS
FORMS = (".vtt", ".srt", ".json3", ".json")  # of transcripts; the last is Whisper's


def narration(rng: np.random.Generator, events: Sequence[Event]) -> dict:
    subtitles, denoised = [], []
    for i, event in enumerate(events):
        start = i * STEP
        heard = list(_mishear(rng, event.text.split()))
        times = start + np.linspace(0.15, CLIP_SECONDS - 0.15, len(heard))
        subtitles += [{"word": w, "time": round(float(t), 3)} for w, t in zip(heard, times, strict=True)]
        denoised.append({"cleanasr": event.text.capitalize() + "."})
    return {"subtitles": subtitles, "denoised": denoised, "info": {"duration": DURATION}}


def _mishear(rng: np.random.Generator, words: list[str]) -> Iterator[str]:
    """The usual noise of speech recognition: fillers, words misheard, words dropped."""
    for word in words:
        if rng.random() < 0.1:
            yield str(rng.choice(FILLERS))
        if rng.random() < 0.15 and word in MISHEARD:
            yield MISHEARD[word]
        elif rng.random() > 0.03:
            yield word


def as_transcript(words: Sequence[Mapping[str, Any]], form: str) -> str:
    """Recognised words with their times, a line an event, as a file of one of FORMS.

    .vtt rolls up and has the times of words, as YouTube's own; .srt has a time a line; the others have both.
    """
    by_event: list[list[tuple[str, float]]] = [[] for _ in range(DURATION // STEP)]
    for word in words:
        by_event[int(word["time"] // STEP)].append((html.unescape(word["word"]), word["time"]))
    lines = [line for line in by_event if line]
    ends = [line[0][1] for line in lines[1:]] + [float(DURATION)]
    if form == ".json":
        segments = [
            {
                "start": line[0][1],
                "end": end,
                "text": " ".join(word for word, _ in line),
                "words": [{"word": f" {word}", "start": time, "end": time} for word, time in line],
            }
            for line, end in zip(lines, ends, strict=True)
        ]
        return json.dumps({"segments": segments})
    if form == ".json3":
        events = []
        for line, end in zip(lines, ends, strict=True):
            start = round(1000 * line[0][1])
            segs = [{"utf8": f" {word}", "tOffsetMs": round(1000 * time) - start} for word, time in line]
            events.append({"tStartMs": start, "dDurationMs": round(1000 * end) - start, "segs": segs})
        return json.dumps({"events": events})
    cues: list[str] = []
    before = ""
    for number, (line, end) in enumerate(zip(lines, ends, strict=True), start=1):
        begin, text = line[0][1], html.escape(" ".join(word for word, _ in line), quote=False)
        if form == ".srt":
            times = f"{clock(begin)} --> {clock(end)}".replace(".", ",")
            cues.append(f"{number}\n{times}\n{text}\n")
            continue
        timed = "".join(f"<{clock(time)}><c> {html.escape(word, quote=False)}</c>" for word, time in line[1:])
        first = html.escape(line[0][0], quote=False)
        cues.append(f"{clock(begin)} --> {clock(end - 0.01)}\n{before}{first}{timed}\n")
        cues.append(f"{clock(end - 0.01)} --> {clock(end)}\n{text}\n")
        before = f"{text}\n"
    return "\n".join(["WEBVTT\n", *cues] if form == ".vtt" else cues)


def clock(seconds: float) -> str:
    """As 00:00:02.500."""
    return f"00:00:{seconds:06.3f}"
