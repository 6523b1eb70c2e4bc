"""In which format PyTorch computes."""

import torch
from torch import Tensor


def dtype_of_products(x: Tensor) -> torch.dtype:
    """The format of a matrix product with x: autocast's where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def as_residual(x: Tensor) -> Tensor:
    """x in the format of the sum that runs through a tower's blocks.

    Under bf16 autocast that is bf16, too: the sum is read and written many times a block, and the products
    round what they read of it anyway. fp16 could overflow there.
    """
    return x.bfloat16() if dtype_of_products(x) == torch.bfloat16 else x
