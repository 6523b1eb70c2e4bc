"""Subtitles and other programs' transcripts as words with times, and as training samples."""

import json
from itertools import pairwise

import numpy as np
import pytest

from data_loader import build_dataset
from data_loader.subtitles import words_of
from data_loader.transcripts import TranscriptError, load_transcript, read_transcript
from tests.data_loader.video_files import write_video
from tests.extras import extra

extra("webvtt")

# As YouTube has them: each line comes three times, once with the times of its words.
BLANK = " "
ROLLING = f"""WEBVTT
Kind: captions
Language: en

00:00:00.030 --> 00:00:02.389 align:start position:0%
{BLANK}
hello<00:00:00.329><c> and</c><00:00:00.780><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello and welcome
{BLANK}

00:00:02.399 --> 00:00:05.000 align:start position:0%
hello and welcome
to<00:00:02.700><c> Tom</c><00:00:03.100><c> &amp;</c><00:00:03.500><c> co</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
to Tom &amp; co
{BLANK}

00:00:05.010 --> 00:00:08.000 align:start position:0%
to Tom &amp; co
[Music]
"""


def spoken(path):
    transcript = read_transcript(path)
    assert transcript.duration is None and transcript.problems == ()
    return [(word, round(time, 3)) for word, time in zip(transcript.words, transcript.times, strict=True)]


def put(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_words_of_rolling_captions_come_once_with_their_own_times(tmp_path):
    expected = [("hello", 0.03), ("and", 0.329), ("welcome", 0.78)]
    expected += [("to", 2.399), ("Tom", 2.7), ("&", 3.1), ("co", 3.5)]
    assert spoken(put(tmp_path, "a.en.vtt", ROLLING)) == expected


def test_rolling_captions_that_lost_the_times_of_words_come_once_too(tmp_path):
    """What yt-dlp --convert-subs srt makes of them."""
    content = """1
00:00:00,000 --> 00:00:02,000
one two

2
00:00:02,000 --> 00:00:02,010
one two

3
00:00:02,010 --> 00:00:04,010
one two
three four

4
00:00:04,010 --> 00:00:04,020
three four

5
00:00:04,020 --> 00:00:05,020
three four
three four
"""
    words = spoken(put(tmp_path, "a.srt", content))
    assert words == [("one", 0), ("two", 1), ("three", 2.01), ("four", 3.01), ("three", 4.02), ("four", 4.52)]


def test_a_line_without_times_of_words_is_spread_evenly(tmp_path):
    content = """1
00:01:02,500 --> 00:01:04,500
{\\an8}<i>Now, mix</i>
two eggs.

2
00:01:04,500 --> 00:01:06,500
No.

3
00:01:06,500 --> 00:01:07,000
No.
"""
    words = spoken(put(tmp_path, "a.SRT", content))
    assert words[:4] == [("Now,", 62.5), ("mix", 63), ("two", 63.5), ("eggs.", 64)]
    assert words[4:] == [("No.", 64.5), ("No.", 66.5)]  # said twice


def test_a_line_ends_where_the_next_begins(tmp_path):
    content = "WEBVTT\n\n00:02.000 --> 00:06.000\nthree four\n\n00:00.000 --> 00:04.000\n>> one two [Noise]\n"
    words = spoken(put(tmp_path, "a.vtt", content))
    assert words == [("one", 0), ("two", 1), ("three", 2), ("four", 4)]


def test_whisper(tmp_path):
    plain = [{"start": 1.0, "end": 3.0, "text": " Hello there."}, {"start": 3, "end": 4, "text": ""}]
    assert spoken(put(tmp_path, "a.json", {"text": "", "segments": plain})) == [("Hello", 1), ("there.", 2)]
    words = [(" A", 1.1), (" well", 1.2), ("-known", 1.5), (" dish", 1.9)]
    timed = [{"word": word, "start": start, "end": start + 0.1} for word, start in words]
    segments = [{"start": 1, "end": 2, "text": " A well-known dish", "words": timed}]
    found = spoken(put(tmp_path, "b.json", {"segments": segments}))
    assert found == [("A", 1.1), ("well-known", 1.2), ("dish", 1.9)]


def test_whisperx_has_words_without_spaces_and_without_times():
    words = [{"word": "add", "start": 0.5, "end": 0.6}, {"word": "2"}, {"word": "eggs", "start": 1, "end": 2}]
    segments = [{"start": 0.5, "end": 2, "text": "add 2 eggs", "words": words}]
    assert words_of({"segments": segments}) == [("add", 0.5), ("2", 0.5), ("eggs", 1)]


def test_json3_of_speech_recognition_and_of_a_person(tmp_path):
    segments = [{"utf8": "great"}, {"utf8": " paper", "tOffsetMs": 400}, {"utf8": " to"}, {"utf8": "day"}]
    segments[2]["tOffsetMs"] = segments[3]["tOffsetMs"] = 760
    events = [
        {"tStartMs": 0, "dDurationMs": 502120, "id": 1},
        {"tStartMs": 120, "dDurationMs": 7239, "segs": segments},
        {"tStartMs": 3149, "dDurationMs": 4210, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 4000, "dDurationMs": 2000, "segs": [{"utf8": "by one\nand all"}]},
    ]
    words = spoken(put(tmp_path, "a.json3", {"wireMagic": "pb3", "events": events}))
    assert words[:3] == [("great", 0.12), ("paper", 0.52), ("today", 0.88)]
    assert words[3:] == [("by", 4), ("one", 4.5), ("and", 5), ("all", 5.5)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.vtt", "no subtitles", "is no vtt file"),
        ("a.srt", "no subtitles", "is no srt file"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:0x.000\nbroken\n", "is no vtt file"),
        (
            "a.srt",
            "1\n00:00:01,000 --> 00:00:02,000\na\n\n2\n00:00:03 --> 00:00:x\nb\n",
            "is no srt file: line 6, .*, has broken times",
        ),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n[Music]\n", "no words in it"),
        ("a.json", {"segments": []}, "no words in it"),
        (
            "a.json",
            {"segments": [{"start": None, "end": 1, "text": "a"}]},
            "segment 0: start is None, no time",
        ),
        ("a.json", {"segments": [{"start": 0, "end": 1, "text": 3}]}, "segment 0: text is 3, no text"),
        ("a.json", {"segments": [7]}, "segment 0: start is None"),
        ("a.json", {"segments": [{"start": 0, "end": 1, "words": [1]}]}, "segment 0: its words are no list"),
        ("a.json3", {"events": [{"segs": [{"utf8": "a"}]}]}, "event 0: tStartMs is None, no time"),
        ("a.json3", {"events": [{"tStartMs": 0, "segs": "a"}]}, "event 0: its segs are no list"),
    ],
)
def test_what_is_no_transcript(tmp_path, name, content, reason):
    with pytest.raises(TranscriptError, match=reason):
        read_transcript(put(tmp_path, name, content))


def test_other_encodings_and_missing_files_are_named(tmp_path):
    (tmp_path / "a.vtt").write_bytes("WEBVTT\n\n00:01.000 --> 00:02.000\ncafé\n".encode("latin-1"))
    with pytest.raises(TranscriptError, match="utf-8"):
        read_transcript(tmp_path / "a.vtt")
    with pytest.raises(TranscriptError, match="No such file"):
        read_transcript(tmp_path / "b.vtt")


def test_a_cached_transcript_is_the_same(tmp_path):
    path = put(tmp_path, "a.vtt", ROLLING)
    for _ in range(2):
        assert load_transcript(path, tmp_path / "cache") == read_transcript(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A video of 24 s, a word in each half second of it, in each of four forms."""
    root = tmp_path_factory.mktemp("narrated")
    write_video(root / "a.mp4", 48, size=(64, 38), times=[500 * i for i in range(48)])
    words = [(f"w{i}", 0.25 + i / 2) for i in range(48)]
    cues = [f"00:00:{t:06.3f} --> 00:00:{t + 0.4:06.3f}\n{word}\n" for word, t in words]
    put(root, "a.vtt", "\n".join(["WEBVTT\n", *cues]))
    put(root, "a.srt", "\n".join(f"{i}\n{cue.replace('.', ',')}" for i, cue in enumerate(cues, start=1)))
    put(root, "a.json", {"segments": [{"start": t, "end": t + 0.4, "text": word} for word, t in words]})
    events = [{"tStartMs": 1000 * t, "dDurationMs": 400, "segs": [{"utf8": word}]} for word, t in words]
    put(root, "a.json3", {"events": events})
    return root


def open_narrated(root, folder, transcripts, **more):
    rows = "".join(f"a.mp4\t{name}\n" for name in transcripts)
    path = put(folder, "list.tsv", f"path\ttranscript\n{rows}")
    return build_dataset("narrated", "train", root=root, files=str(path), image_size=32, **more)


def test_each_form_gives_the_same_samples(root, tmp_path):
    dataset = open_narrated(root, tmp_path, ["a.vtt", "a.srt", "a.json", "a.json3"])
    assert len(dataset) == 4 and dataset.records.num_clips == 4
    transcripts = [dataset.records[i].transcript for i in range(4)]
    assert all(t.words == transcripts[0].words for t in transcripts)
    assert all(np.allclose(t.times, transcripts[0].times) for t in transcripts)
    for epoch in range(10):
        item = dataset[epoch, 0]
        assert item["valid_frames"] == 12 and item["problems"] == () and item["failures"] == []
        said = [[int(word[1:]) for word in text.split()] for text in item["text"]]
        assert len(said) == 4
        assert all(5 <= len(clip) <= 10 for clip in said)  # clips of 3 to 5 seconds, less at the end
        assert all(list(range(clip[0], clip[-1] + 1)) == clip for clip in said)
        assert all(after[0] - clip[-1] in (2, 3) for clip, after in pairwise(said))


def test_words_behind_the_end_of_the_video_are_said(root, tmp_path):
    late = {"segments": [{"start": 1, "end": 2, "text": "one"}, {"start": 100, "end": 101, "text": "late"}]}
    put(root, "late.json", late)
    item = open_narrated(root, tmp_path, ["late.json"])[0]
    assert item["problems"] == ("words after the end",) and "late" not in " ".join(item["text"])


def test_a_transcript_that_cannot_be_read_is_replaced(root, tmp_path):
    item = open_narrated(root, tmp_path, ["gone.vtt", "a.srt"])[0]
    [(file, reason)] = item["failures"]
    assert file == str(root / "gone.vtt") and reason == "transcript: No such file or directory"


def test_lists_of_spans_are_not_narrated(root, tmp_path):
    path = put(tmp_path, "list.csv", "path,transcript,start\na.mp4,a.vtt,1\n")
    with pytest.raises(ValueError, match=r"list\.csv has columns of starts and ends"):
        build_dataset("narrated", "train", root=root, files=str(path))
