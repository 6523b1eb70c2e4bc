"""A small random model, as a weights file and loaded."""

from pathlib import Path

import pytest
import torch

from model import create_model
from trainer.sharded import save_sharded
from utils.processes import DistContext


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "demo.pth"
    torch.save({"state_dict": create_model("TVTSv2_Demo").state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def model(checkpoint):
    model = create_model("TVTSv2_Demo", sort_head=False).eval()
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    model.load_state_dict({name: x for name, x in state.items() if not name.startswith("pred_model.")})
    return model


@pytest.fixture(scope="session")
def sharded(checkpoint) -> Path:
    """The same weights as a distributed checkpoint."""
    path = checkpoint.with_name("checkpoint-epoch1.dcp")
    optimizer = {"state": {}, "param_groups": []}
    state = torch.load(checkpoint, weights_only=True) | {"optimizer": optimizer}
    save_sharded(state, path, DistContext(rank=0, world_size=1, local_rank=0, device=torch.device("cpu")))
    return path


@pytest.fixture
def blocked(tmp_path) -> Path:
    """Where no folder can be made, not even by root."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"
