"""In which format PyTorch computes."""

import torch
from torch import Tensor


def dtype_of_products(x: Tensor) -> torch.dtype:
    """The format of a matrix product with x: autocast's where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
