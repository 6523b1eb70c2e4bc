"""What every test needs."""

import os
from collections.abc import Iterator

import pytest

# Before PyTorch, as train.py does: threads that spin while they wait take cores from the processes of a test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Asking whether there is a GPU would else keep processes forked later from using it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[None]:
    """What a run or a benchmark sets for this process is not for the tests after it: one core would idle."""
    yield
    torch.set_num_threads(THREADS)
