"""What every test needs."""

from collections.abc import Iterator

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[None]:
    """What a run or a benchmark sets for this process is not for the tests after it: one core would idle."""
    yield
    torch.set_num_threads(THREADS)
