"""Speech recognition (ASR): from recognised words to words that have times and read well.

Recognised words carry times but errors; the denoised text reads well but has no times. Dynamic time
warping over edit distance hands each denoised word the time of a recognised one (the YT-Temporal recipe).
"""

import string
from collections.abc import Sequence
from functools import lru_cache

import ftfy
import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
UNREACHED = np.iinfo(np.int32).max // 2


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
