"""Run by torchrun in test_failures.py: train.py, but process 1 fails at its fifth step."""

import os
import sys

from torch.distributed.elastic.multiprocessing.errors import record

import train
from trainer.trainer import Trainer

plain = Trainer._step


def fail_at_the_fifth(self, batch):
    if self.global_step == 4 and os.environ["RANK"] == "1":
        raise ArithmeticError("the fifth step was too much")
    return plain(self, batch)


if __name__ == "__main__":
    Trainer._step = fail_at_the_fifth
    sys.exit(record(train.main)())
