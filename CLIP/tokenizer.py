"""CLIP's byte-pair tokenizer, from open_clip_torch."""

from functools import cache

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
