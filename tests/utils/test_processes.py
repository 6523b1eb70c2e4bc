"""Which device each process takes, by what a person asks for."""

import pytest
import torch

from utils.processes import setup


@pytest.fixture
def gpus(monkeypatch):
    """As if this machine had four GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)


def place(monkeypatch, local_rank: int, processes: int) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


@pytest.mark.parametrize(
    ("device", "local_rank", "processes", "expected"),
    [
        (None, 2, 4, "cuda:2"),
        ("cuda", 1, 2, "cuda:1"),
        ("cuda:3", 0, 1, "cuda:3"),
        ("0,1", 0, 2, "cuda:0"),
        ("1, 3", 1, 2, "cuda:3"),
        (2, 0, 1, "cuda:2"),
        ("cpu", 1, 2, "cpu"),
    ],
)
def test_each_process_takes_its_own(gpus, monkeypatch, device, local_rank, processes, expected):
    place(monkeypatch, local_rank, processes)
    assert setup(device).device == torch.device(expected)


@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [
        ("0,1", 1, r"names 2 GPU\(s\) for 1 process\(es\).*torchrun --nproc_per_node 2"),
        ("cuda:0", 2, r"names 1 GPU\(s\) for 2 process\(es\)"),
        ("0,0", 2, r"names 1 GPU\(s\) for 2 process\(es\)"),
        ("7", 1, "wants GPU 7, but there are 4"),
        ("gpu", 1, "none of cpu, cuda, cuda:1, or numbers of GPUs such as 0,1"),
        ("0;1", 1, "none of cpu, cuda"),
    ],
)
def test_what_cannot_be_is_explained(gpus, monkeypatch, device, processes, message):
    place(monkeypatch, 0, processes)
    with pytest.raises(ValueError, match=message):
        setup(device)


def test_asking_for_a_gpu_where_there_is_none_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no GPU"):
        setup("cuda")
    with pytest.raises(ValueError, match="sees no GPU"):
        setup("0")
