"""Run by tests as a rank of a training: train.py, but rank 1 is started with more arguments."""

import os

import train


def main(arguments: list[str]) -> int:
    """`arguments`: those of rank 1 alone follow "--". "cd=FOLDER" is where a rank is started."""
    at = arguments.index("--")
    own = arguments[:at] + (arguments[at + 1 :] if os.environ["RANK"] == "1" else [])
    for folder in [each for each in own if each.startswith("cd=")]:
        os.chdir(folder.removeprefix("cd="))
        own.remove(folder)
    return train.main(own)
