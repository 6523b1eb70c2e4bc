"""CLIP's byte-pair tokenizer, from open_clip_torch."""

from functools import cache
from typing import NamedTuple

from torch import Tensor

CONTEXT_LENGTH = 77


@cache
def _tokenizer():
    from open_clip.tokenizer import (
        SimpleTokenizer,
    )  # imported late: it takes seconds and few programs need it

    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


def tokenize(texts: list[str] | str) -> Tensor:
    """Texts -> ids, int64 [len(texts), 77]: start-of-text, the words, end-of-text, zeros.

    A text of more than 77 tokens is cut, its last id still being end-of-text.
    """
    if isinstance(texts, str):
        texts = [texts]
    return _tokenizer()(list(texts))


def words_of(ids: list[int]) -> str:
    """The text of a row of `tokenize`, in lower case."""
    return _tokenizer().decode(ids[1 : ids.index(max(ids))]).strip()


class BytePairs(NamedTuple):
    """What the tokenizer is made of."""

    vocabulary: dict[str, int]  # token -> id
    merges: list[tuple[str, str]]  # first come first
    words: str  # a regular expression of the words that are split into tokens, in lower case
    specials: tuple[str, str]  # start and end of text


def byte_pairs() -> BytePairs:
    """For tokenizers of other libraries, which get texts cleaned: ftfy, HTML, spaces, lower case."""
    tokenizer = _tokenizer()
    begin, end = (tokenizer.decoder[number] for number in tokenizer.all_special_ids)
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    return BytePairs(tokenizer.encoder, merges, tokenizer.pat.pattern, (begin, end))
