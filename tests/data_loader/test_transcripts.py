"""Transcripts: whole ones, malformed ones and the cache."""

import json
import math
import os

import pytest

from data_loader import transcripts
from data_loader.transcripts import Transcript, TranscriptError, load_transcript, read_transcript


def content(**changes):
    base = {
        "subtitles": [
            {"word": w, "time": 1.0 + t} for t, w in enumerate(["so", "we", "gonna", "mix", "two", "eggs"])
        ],
        "denoised": [{"cleanasr": "So we're going to mix"}, {"cleanasr": "two eggs."}],
        "info": {"duration": 30.9},
    }
    return {**base, **changes}


def word(text, time):
    return {"word": text, "time": time}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "video.json"
    path.write_text(json.dumps(content()))
    return path


def test_a_whole_transcript(path):
    transcript = read_transcript(path)
    assert transcript == read_transcript(content())
    assert transcript.duration == 30 and transcript.problems == ()
    assert transcript.times == [1, 2, 3, 4, 5, 6]
    assert " ".join(transcript.words) == "So we're going to mix two eggs."
    assert transcript.text(4.5, 7) == "two eggs."
    assert transcript.text(5, 6) == ""  # both ends are exclusive
    assert transcript.text(0.5, 1.5) == "So"


def test_text_skips_words_without_denoised_ones():
    transcript = Transcript(["a", "", "b"], [1, 2, 3], 9)
    assert transcript.text(0, 9) == "a b"


def test_each_denoised_text_is_split_at_single_spaces(monkeypatch):
    seen = []
    monkeypatch.setattr(
        transcripts, "align_words", lambda raw, denoised: seen.extend(denoised) or [""] * len(raw)
    )
    read_transcript(content(denoised=[{"cleanasr": "So  we "}, {"cleanasr": "mix"}]))
    assert seen == ["So", "", "we", "", "mix"]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"subtitles": [word("so", 1), word("two", 5), word("eggs", 3)]}, "times out of order"),
        ({"subtitles": [word("so", 1), word("eggs", None)]}, "words without a time"),
        ({"subtitles": [word("so", 1), {"word": "eggs"}]}, "words without a time"),
        ({"subtitles": [word("so", 1), word("eggs", "nan")]}, "words without a time"),
        ({"subtitles": [word("so", 1), {"time": 2}, 7, word(None, 3)]}, "subtitles without a word"),
        ({"subtitles": [word("so", 1), word("eggs", 99)]}, "words after the end"),
    ],
)
def test_what_can_be_mended_is_counted(changes, problem):
    transcript = read_transcript(content(**changes))
    assert transcript.problems == (problem,)
    assert len(transcript.words) == len(transcript.times) >= 1


def test_a_word_without_a_time_is_in_no_clip():
    transcript = read_transcript(
        content(
            subtitles=[word("mix", 1), word("two", None), word("eggs", "3")],
            denoised=[{"cleanasr": "mix two eggs"}],
        )
    )
    assert math.isnan(transcript.times[1]) and transcript.times[2] == 3.0
    assert transcript.text(0, 30) == "mix eggs"


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"subtitles": []}, "no words"),
        ({"subtitles": None}, "no words"),
        ({"subtitles": [word("&gt;", 1), word("", 2)]}, "no words"),
        ({"denoised": []}, "no denoised text"),
        ({"denoised": None}, "no denoised text"),
        ({"denoised": [{"cleanasr": " "}, {"text": "a"}, 3]}, "no denoised text"),
        ({"info": None}, "'info.duration' is missing"),
        ({"info": {}}, "'info.duration' is missing"),
        ({"info": {"duration": "long"}}, "'info.duration' is missing or no number"),
        ({"info": {"duration": 10**400}}, "'info.duration' is missing or no number"),
        ({"info": {"duration": 0}}, "'info.duration' is 0 s"),
        ({"info": {"duration": -5}}, "'info.duration' is -5 s"),
    ],
)
def test_what_gives_no_sample_is_refused_with_its_reason(changes, reason):
    with pytest.raises(TranscriptError, match=reason):
        read_transcript(content(**changes))


@pytest.mark.parametrize("key", ["subtitles", "denoised", "info"])
def test_missing_keys_are_refused(key):
    broken = content()
    del broken[key]
    with pytest.raises(TranscriptError, match=key):
        read_transcript(broken)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    "written, reason",
    [(None, "No such file"), (b"{", "not JSON"), (b"\xff\xfe\x00", "not JSON"), (b"[1]", "no JSON object")],
)
def test_unreadable_files(tmp_path, written, reason, cached):
    path = tmp_path / "video.json"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(TranscriptError, match=reason):
        load_transcript(path, tmp_path / "cache" if cached else None)


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path):
        return tmp_path / "cache"

    @pytest.fixture
    def reads(self, monkeypatch):
        """The files that were read and aligned."""
        reads = []
        plain = transcripts.read_transcript
        monkeypatch.setattr(transcripts, "read_transcript", lambda path: reads.append(path) or plain(path))
        return reads

    def test_the_second_time_nothing_is_aligned(self, path, cache, reads):
        first, second = load_transcript(path, cache), load_transcript(path, cache)
        assert first == second == read_transcript(path)
        assert len(reads) == 1
        assert len(self.files(cache)) == 1  # and no temporary file

    def test_a_changed_file_is_read_anew(self, path, cache, reads):
        load_transcript(path, cache)
        path.write_text(json.dumps(content(info={"duration": 40})))
        assert load_transcript(path, cache).duration == 40
        os.utime(path, ns=(1, 1))
        load_transcript(path, cache)
        assert len(reads) == 3

    @pytest.mark.parametrize("damage", [b"", b"junk", None])
    def test_a_damaged_entry_is_made_anew(self, path, cache, reads, damage):
        first = load_transcript(path, cache)
        (entry,) = self.files(cache)
        entry.write_bytes(entry.read_bytes()[:-5] if damage is None else damage)
        assert load_transcript(path, cache) == first
        assert load_transcript(path, cache) == first
        assert len(reads) == 2

    def test_times_that_are_not_there_survive(self, tmp_path, cache):
        path = tmp_path / "video.json"
        path.write_text(json.dumps(content(subtitles=[word("so", 1), word("eggs", None)])))
        for _ in range(2):
            transcript = load_transcript(path, cache)
            assert math.isnan(transcript.times[1]) and transcript.problems == ("words without a time",)

    def test_a_cache_that_cannot_be_written_is_told_and_done_without(self, path, cache):
        cache.write_text("a file where the folder should be")
        with pytest.warns(UserWarning, match="cannot be kept in .*cache"):
            assert load_transcript(path, cache) == read_transcript(path)

    @staticmethod
    def files(cache):
        return [p for p in cache.rglob("*") if p.is_file()]


def test_durations_that_no_video_has():
    for seconds in (1e7, 1e300, "1e300"):
        with pytest.raises(TranscriptError, match=r"'info\.duration' is .*more than 1000000"):
            read_transcript(content(info={"duration": seconds}))


def test_json_nested_without_end(tmp_path):
    (tmp_path / "video.json").write_text('{"subtitles": ' + "[" * 200_000)
    with pytest.raises(TranscriptError, match="is not JSON"):
        read_transcript(tmp_path / "video.json")


def test_half_characters_become_whole_ones():
    transcript = read_transcript(
        content(denoised=[{"cleanasr": "So we\ud83d mix"}, {"cleanasr": "two eggs."}])
    )
    assert " ".join(transcript.words).encode().decode().split() == ["So", "we�", "mix", "two", "eggs."]
