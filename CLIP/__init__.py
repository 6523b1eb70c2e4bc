"""OpenAI's CLIP: the starting weights of the B variants, and their tokenizer."""

from CLIP.tokenizer import tokenize

__all__ = ["tokenize"]
