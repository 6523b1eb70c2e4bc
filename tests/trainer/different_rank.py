"""Run by tests as a rank of a training: train.py, but rank 1 is started with more arguments."""

import os

import train


def main(arguments: list[str]) -> int:
    """`arguments`: those of rank 1 alone follow "--"."""
    at = arguments.index("--")
    return train.main(arguments[:at] + (arguments[at + 1 :] if os.environ["RANK"] == "1" else []))
