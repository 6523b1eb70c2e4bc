"""Linear layers whose bias gets its gradient from the kernel that reads their output.

By itself the gradient of a bias is a sum over all tokens, for which everything would be read once more. The
backward kernels hold these numbers anyway and sum them up in passing.
"""

from abc import ABC, abstractmethod
from importlib.util import find_spec
from os import environ
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..precision import dtype_of_products

if TYPE_CHECKING:
    from .fp8 import Linear, Quantized

# It comes with PyTorch for NVIDIA's GPUs, not everywhere else. Without a GPU its import costs seconds for
# nothing.
HAS_TRITON = bool(find_spec("triton") and (torch.cuda.device_count() or "TRITON_INTERPRET" in environ))


class Projected(NamedTuple):
    """The output of a linear layer, for one of the functions of this package to read.

    `value` holds the bias already. Where `bias` is given, `value` passes no gradient on to it: the kernel
    that takes the two of them does.
    """

    value: Tensor
    bias: Tensor | None


class Fp8Layer(ABC):
    """A linear layer that multiplies in fp8, and may take what is quantised already."""

    bias: Any  # a parameter or a buffer

    def forward(self, x: "Tensor | Quantized") -> Tensor:
        """[..., in] -> [..., out]"""
        return self.with_bias(x, self.bias)

    @abstractmethod
    def with_bias(self, x: "Tensor | Quantized", bias: Tensor) -> Tensor:
        """The same with the layer's bias, or with that detached."""


def project(x: Any, layer: "Linear", for_kernel: bool) -> Projected:
    """layer(x) of x [..., in], as [..., out]; for_kernel: what reads it is a kernel."""
    if not for_kernel:
        return Projected(layer(x), None)
    bias = layer.bias.detach()
    if isinstance(layer, Fp8Layer):
        return Projected(layer.with_bias(x, bias), layer.bias)
    return Projected(F.linear(x, layer.weight, bias), layer.bias)


def kernels_take(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the kernels run where x is, on numbers of this type: on a GPU, in half precision."""
    return HAS_TRITON and x.is_cuda and dtype in (torch.bfloat16, torch.float16)


def kernels_take_products(x: Tensor) -> bool:
    """The same of what a linear layer makes of x."""
    return kernels_take(x, dtype_of_products(x))
