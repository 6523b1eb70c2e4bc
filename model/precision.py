"""In which format PyTorch computes."""

import torch
from torch import Tensor


def dtype_of_products(x: Tensor) -> torch.dtype:
    """The format of a matrix product with x: autocast's where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def dtype_of_residual(x: Tensor) -> torch.dtype:
    """The format of the sum that runs through a tower's blocks, x being any of their tensors.

    Under bf16 autocast that is bf16, too: the sum is read and written many times a block, and the products
    round what they read of it anyway. fp16 could overflow there, so that fp16 autocast leaves float32.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.bfloat16 if torch.get_autocast_dtype(kind) == torch.bfloat16 else torch.float32


def as_residual(x: Tensor) -> Tensor:
    """x, the first sum of a tower, in that format."""
    return x.bfloat16() if dtype_of_products(x) == torch.bfloat16 else x
