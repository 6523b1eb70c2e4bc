"""Workers hand the same tensors over with and without shared memory."""

import pytest
import torch
from torch.utils.data import DataLoader

from data_loader import handover
from data_loader.handover import stack
from data_loader.loader import worker_options


def batch_of(numbers: list[int]) -> dict:
    return {"video": stack([torch.full((3, 8, 8), n, dtype=torch.uint8) for n in numbers]), "n": numbers}


@pytest.mark.heavy
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_through_pipes_where_shared_memory_is_short(context, monkeypatch, capsys):
    batches = {}
    for enough in (0, 2**60):
        monkeypatch.setattr(handover, "ENOUGH_BYTES", enough)
        options = worker_options(1, 2, context)
        batches[enough] = list(DataLoader(range(7), batch_size=3, collate_fn=batch_of, **options))
    shared, piped = batches.values()
    assert all(batch["video"].is_shared() for batch in shared)
    assert not any(batch["video"].is_shared() for batch in piped)
    assert [batch["n"] for batch in piped] == [[0, 1, 2], [3, 4, 5], [6]]
    for one, other in zip(shared, piped, strict=True):
        assert torch.equal(one["video"], other["video"])
        other["video"] += 1  # it can be written to, like the other
    handover._say_once.cache_clear()
    worker_options(1, 2)
    assert "docker run --shm-size" in capsys.readouterr().err
