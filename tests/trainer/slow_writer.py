"""Run by tests as a rank of a training: train.py, but checkpoints go to a slow disk."""

import time

import train
from trainer import checkpoint

plain = checkpoint.save_atomically


def slowly(state, path):
    time.sleep(4)
    plain(state, path)


def main(arguments: list[str]) -> int:
    checkpoint.save_atomically = slowly
    return train.main(arguments)
