"""The activation between the two layers of an MLP."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .fp8 import Linear, Quantized, quantize_rows
from .projection import HAS_TRITON, Projected, kernels_take, kernels_take_products, project

if HAS_TRITON:
    from . import triton_fp8
    from .triton_activation import activation_forward


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
    if fp8:
        return quantize_activation(hidden, name)
    if bias is None:
        in_place = name == "quick_gelu" and not torch.is_grad_enabled()
        return quick_gelu_(hidden) if in_place else ACTIVATIONS[name](hidden)
    return activation_forward(hidden, bias, name == "quick_gelu")


def quantize_activation(hidden: Tensor, name: str) -> Quantized:
    """ACTIVATIONS[name] of hidden [..., F], for an Fp8Linear; without gradients."""
    if kernels_take(hidden, hidden.dtype):
        return Quantized(*triton_fp8.quantize(hidden, name))
    return quantize_rows(ACTIVATIONS[name](hidden))


def activation_backward(grad: Tensor, hidden: Tensor, name: str) -> tuple[Quantized, Quantized, Tensor]:
    """Of ACTIVATIONS[name] of hidden [..., F], whose gradient is grad, in fp8.

    Returns:
        The activation once more; the gradient of hidden; in parts [parts, F] that of the bias in hidden.
    """
    if kernels_take(hidden, hidden.dtype):
        out, out_scales, values, scales, bias_parts = triton_fp8.activation_backward(grad, hidden, name)
        return Quantized(out, out_scales), Quantized(values, scales), bias_parts
    if name == "gelu":
        exact = torch.ops.aten.gelu_backward(grad, hidden)
    else:
        exact = torch.ops.aten.silu_backward(grad, 1.702 * hidden)
    return quantize_rows(ACTIVATIONS[name](hidden)), quantize_rows(exact), exact.flatten(0, -2)
