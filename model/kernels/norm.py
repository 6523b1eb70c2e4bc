"""The residual sum and the LayerNorm after it, in one pass over the tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from ..precision import dtype_of_products, dtype_of_residual
from .fp8 import Linear, Quantized, quantize_for_training, quantize_rows
from .projection import HAS_TRITON, Projected, kernels_take, kernels_take_products, project

if HAS_TRITON:
    from . import triton_fp8, triton_norm

WIDEST = 4096  # tokens that the kernel holds in registers


def project_branch(y: Tensor | Quantized, proj: Linear) -> Projected:
    """proj(y) for `add_norm` to add to the residual stream, [B, L, width] -> [B, L, width]."""
    like = y.scales if isinstance(y, Quantized) else y
    fits = proj.out_features <= WIDEST and dtype_of_residual(like) == dtype_of_products(like)
    return project(y, proj, for_kernel=fits and kernels_take_products(like))


def add_norm(
    x: Tensor, branch: Tensor | Projected | None, norm: nn.LayerNorm, fp8: bool = False, keep_sum: bool = True
) -> tuple[Tensor, Any]:
    """The residual sum x + branch, or x without a branch, and its LayerNorm; all [B, L, width].

    fp8: the latter as Quantized, for a layer in fp8, with what gradients need where they are enabled.
    Without keep_sum the first may be empty: it is not used.
    """
    value, bias = branch if isinstance(branch, Projected) else (branch, None)
    same = value is None or value.dtype == x.dtype
    if same and x.shape[-1] <= WIDEST and kernels_take(x, x.dtype):
        if fp8 and not torch.is_grad_enabled():
            total, *quantized = triton_fp8.add_layer_norm_fp8(
                x, value, norm.weight, norm.bias, norm.eps, keep_sum
            )
            return (x if value is None else total), Quantized(*quantized)
        total, normed, _, _, values, scales = triton_norm.add_layer_norm(
            x, value, bias, norm.weight, norm.bias, norm.eps, fp8
        )
        quantized = Quantized(values.detach(), scales.detach(), normed) if fp8 else normed
        return (x if value is None else total), quantized
    without = bias is None or not torch.is_grad_enabled()
    assert without, "project_branch left the bias's gradient to the kernel, which does not run"
    if value is not None:
        x = x + value
    y = norm(x)
    if not fp8:
        return x, y
    return x, quantize_for_training(y) if torch.is_grad_enabled() else quantize_rows(y)
