"""Alignment of transcripts: the official result, and the fast way against the plain one."""

import json
import string
from pathlib import Path

import numpy as np
import pytest

from data_loader.asr import align_words, clean_subtitles, fix_text

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "data.json").read_text())["asr"]


def test_official_alignment():
    assert clean_subtitles(GOLDEN["words"]) == GOLDEN["cleaned"]
    assert align_words(GOLDEN["cleaned"], GOLDEN["denoised"]) == GOLDEN["aligned"]


def test_cleaning_keeps_times_and_repairs_text():
    subtitles = [
        {"word": "&gt;&gt;", "time": 0.1},
        {"word": "cafÃ©", "time": 0.5},
        {"word": "tea&amp;", "time": 0.7},
        {"word": "", "time": 0.8},
        {"word": "tea", "time": 0.9},
    ]
    assert clean_subtitles(subtitles) == [{"word": "café", "time": 0.5}, {"word": "tea", "time": 0.9}]
    assert subtitles[1]["word"] == "cafÃ©"
    assert fix_text("plain") == "plain"


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def align_plainly(raw, denoised):
    """The definition, cell by cell over the whole matrix."""
    radius = int(max(0.1 * len(raw), 32))
    denoised = denoised[: len(raw) + radius]
    plain = str.maketrans("", "", string.punctuation)
    a, b = ([w.lower().translate(plain) for w in words] for words in (raw, denoised))
    totals = np.full((len(a) + 1, len(b) + 1), np.inf)
    totals[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            cost = edit_distance(a[i], b[j]) if -radius <= j - i < radius else 9999
            totals[i + 1, j + 1] = cost + min(totals[i, j], totals[i, j + 1], totals[i + 1, j])
    i, j = len(a) - 1, len(b) - 1
    path = [(i, j)]
    while i or j:
        step = int(np.argmin([totals[i, j], totals[i, j + 1], totals[i + 1, j]]))
        i, j = i - (step != 2), j - (step != 1)
        path.append((i, j))
    words, used = [[] for _ in raw], set()
    for i, j in reversed(path):
        if j not in used:
            used.add(j)
            words[i].append(denoised[j])
    return [" ".join(w) for w in words]


@pytest.mark.parametrize(
    "raw_len, denoised_len",
    [
        *[(1, 1), (1, 5), (5, 1), (1, 60), (2, 2), (30, 30), (70, 75), (75, 70)],
        *[(40, 71), (40, 72), (40, 73), (40, 90)],  # at and over the cut, 40 + 32
        *[(71, 40), (72, 40), (73, 40), (110, 40), (90, 1), (90, 2)],  # the end in and out of the band
    ],
)
def test_fast_alignment_is_the_plain_one(raw_len, denoised_len):
    rng = np.random.default_rng([raw_len, denoised_len])
    letters = list("abcD'.,")  # few letters: many ties
    vocabulary = ["".join(rng.choice(letters, rng.integers(0, 6))) for _ in range(15)]
    for _ in range(3):
        raw = [str(w) for w in rng.choice(vocabulary, raw_len)]
        denoised = [str(w) for w in rng.choice(vocabulary, denoised_len)]
        assert align_words(raw, denoised) == align_plainly(raw, denoised)


def test_band_grows_with_the_transcript():
    rng = np.random.default_rng(0)
    vocabulary = ["".join(rng.choice(list("abcde"), rng.integers(1, 5))) for _ in range(12)]
    raw = [str(w) for w in rng.choice(vocabulary, 350)]  # r = 35
    denoised = raw[40:] + [str(w) for w in rng.choice(vocabulary, 30)]
    assert align_words(raw, denoised) == align_plainly(raw, denoised)


def test_a_long_transcript_keeps_every_word_in_order():
    rng = np.random.default_rng(0)
    raw = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 7))) for _ in range(2000)]
    denoised = [w.upper() + "." for w in raw if rng.random() > 0.05]
    aligned = align_words(raw, denoised)
    assert len(aligned) == len(raw)
    assert [w for text in aligned for w in text.split()] == denoised
    assert sum(a.lower().strip(".") == r for a, r in zip(aligned, raw, strict=True)) > 1800


def test_nothing_to_align():
    assert align_words([], ["a"]) == []
    assert align_words(["a", "b"], []) == ["", ""]
    assert align_words(["a"], [""]) == [""]
