"""What every test needs."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def plain_user() -> Iterator[Path]:
    """A folder of a user whom permissions bind: root, whom they do not, takes another's rights meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        user = os.geteuid()
        if user == 0:
            nobody = 65534
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)
