"""The activation between the two layers of an MLP."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .fp8 import Linear, Quantized, quantize_rows
from .projection import HAS_TRITON, Projected, kernels_take_products, project

if HAS_TRITON:
    from .triton_activation import activation_forward
    from .triton_fp8 import quantize


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's x · sigmoid(1.702 x), written so that backward needs one stored tensor, not three."""
    return F.silu(1.702 * x) / 1.702


def quick_gelu_(x: Tensor) -> Tensor:
    """The same bits, put in place of x: on a CPU passes over other memory cost more than the arithmetic."""
    return F.silu(x.mul_(1.702), inplace=True).div_(1.702)


# The kernel knows both.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


def project_hidden(x: Tensor | Quantized, c_fc: Linear) -> Projected:
    """c_fc(x) for `activate` to read, [..., width] -> [..., 4·width]."""
    return project(x, c_fc, for_kernel=kernels_take_products(x[0] if isinstance(x, Quantized) else x))


def activate(hidden: Tensor, bias: Tensor | None, name: str, fp8: bool = False) -> Any:
    """ACTIVATIONS[name] of hidden [..., F], which with its bias [F] is as `project_hidden` returns them.

    Where no gradient is wanted, hidden may be overwritten. fp8: as Quantized, for an Fp8Linear; no gradients.
    """
    if bias is None:
        in_place = name == "quick_gelu" and not torch.is_grad_enabled()
        y = quick_gelu_(hidden) if in_place else ACTIVATIONS[name](hidden)
        return quantize_rows(y) if fp8 else y
    if fp8:
        return Quantized(*quantize(hidden, name))
    return activation_forward(hidden, bias, name == "quick_gelu")
