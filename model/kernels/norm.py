"""The residual sum and the LayerNorm after it, in one pass over the tokens."""

from torch import Tensor, nn

from ..precision import dtype_of_products, dtype_of_residual
from .projection import HAS_TRITON, Projected, kernels_take, kernels_take_products, project

if HAS_TRITON:
    from . import triton_norm

WIDEST = 4096  # tokens that the kernel holds in registers


def project_branch(y: Tensor, proj: nn.Linear) -> Projected:
    """proj(y) for `add_norm` to add to the residual stream, [B, L, width] -> [B, L, width]."""
    fits = proj.out_features <= WIDEST and dtype_of_residual(y) == dtype_of_products(y)
    return project(y, proj, for_kernel=fits and kernels_take_products(y))


def add_norm(x: Tensor, branch: Tensor | Projected | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The residual sum x + branch, or x without a branch, and its LayerNorm; all [B, L, width]."""
    value, bias = branch if isinstance(branch, Projected) else (branch, None)
    same = value is None or value.dtype == x.dtype
    if same and x.shape[-1] <= WIDEST and kernels_take(x, x.dtype):
        total, normed, _, _ = triton_norm.add_layer_norm(x, value, bias, norm.weight, norm.bias, norm.eps)
        return (x if value is None else total), normed
    assert bias is None, "project_branch left the bias's gradient to the kernel, which does not run"
    if value is not None:
        x = x + value
    return x, norm(x)
