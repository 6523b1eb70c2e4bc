"""The reference outputs in tests/golden/, and the weights and inputs that they were made with."""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file

from model import create_model

GOLDEN = Path(__file__).parents[1] / "golden"


def read_golden(short_name: str) -> tuple[dict, dict]:
    """Facts and outputs of "B_32", "B_16" or "H_14"."""
    facts = json.loads((GOLDEN / f"{short_name}.json").read_text())
    return facts, load_file(GOLDEN / f"{short_name}.safetensors")


def golden_value(name: str, shape: torch.Size) -> torch.Tensor:
    """A parameter's value, a function of its name and shape alone."""
    r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) == 2:
        return r * shape[-1] ** -0.5
    if len(shape) > 2:
        return r * r[0].numel() ** -0.5
    return 1 + 0.1 * r if name.endswith("weight") else 0.02 * r


def golden_model(name: str, **options) -> torch.nn.Module:
    """create_model with the golden weights, without first giving it random ones: H/14 has 1.2 billion."""
    with torch.device("meta"):
        model = create_model(name, **options)
    model.to_empty(device="cpu")

    def fill(parameter_name: str, tensor: torch.Tensor) -> None:
        tensor.copy_(golden_value(parameter_name, tensor.shape))

    state = model.state_dict()
    # The numbers of one tensor are drawn on one core.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, state.keys(), state.values()))
    return model


def golden_video(frames: int, seed: int, size: int = 224) -> torch.Tensor:
    return torch.randn((2, frames, 3, size, size), generator=torch.Generator().manual_seed(seed))


def golden_keep(kept: int, num_patches: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(num_patches, generator=generator)[:kept] for _ in range(2)])
