"""Run by torchrun in test_failures.py: train.py, but process 1 fails at its fifth step."""

import os
import sys

from torch.distributed.elastic.multiprocessing.errors import record

import train
from trainer.metrics import StepMeter

plain = StepMeter.add


def fail_at_the_fifth(self, step, *rest):
    if step == 5 and os.environ["RANK"] == "1":
        raise ArithmeticError("the fifth step was too much")
    plain(self, step, *rest)


if __name__ == "__main__":
    StepMeter.add = fail_at_the_fifth
    sys.exit(record(train.main)())
