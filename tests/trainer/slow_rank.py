"""Run by tests as a rank of a training: train.py, but the data of rank 1 come from a slow disk."""

import os
import time

import train
from data_loader.loader import JointLoader

plain = JointLoader.__iter__


def slowly(self):
    for item in plain(self):
        time.sleep(0.8)
        yield item


def main(arguments: list[str]) -> int:
    if os.environ["RANK"] == "1":
        JointLoader.__iter__ = slowly
    return train.main(arguments)
