"""OpenCLIP: the starting weights of TVTSv2_H_14. Its tokenizer is CLIP's own."""

from CLIP.tokenizer import tokenize

__all__ = ["tokenize"]
