"""Residual sum and LayerNorm in one Triton kernel: each number is read once and written once.

Backward is PyTorch's own, which torch.compile fuses with what stands around it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

WIDEST = 4096


def supports(x: Tensor) -> bool:
    """Whether the kernel takes x [..., width]: on a GPU, in half precision."""
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and x.shape[-1] <= WIDEST


@triton.jit
def _kernel(
    x, branch, weight, bias, total, normed, mean, rstd, rows, width,
    EPS: tl.constexpr, HAS_BRANCH: tl.constexpr, ROWS: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, PAD)
    at = row[:, None] * width + column[None, :]
    mask = (row[:, None] < rows) & (column[None, :] < width)
    s = tl.load(x + at, mask=mask, other=0.0)
    if HAS_BRANCH:
        s = (s.to(tl.float32) + tl.load(branch + at, mask=mask, other=0.0).to(tl.float32)).to(s.dtype)
        tl.store(total + at, s, mask=mask)
    kind = s.dtype
    s = s.to(tl.float32)
    m = tl.sum(s, axis=1) / width
    centred = tl.where(mask, s - m[:, None], 0.0)
    r = 1 / tl.sqrt(tl.sum(centred * centred, axis=1) / width + EPS)
    w = tl.load(weight + column, mask=column < width, other=0.0)
    b = tl.load(bias + column, mask=column < width, other=0.0)
    n = centred * r[:, None] * w[None, :] + b[None, :]
    tl.store(normed + at, n.to(kind), mask=mask)
    tl.store(mean + row, m, mask=row < rows)
    tl.store(rstd + row, r, mask=row < rows)


@triton_op("tvtsv2::add_layer_norm", mutates_args=())
def add_layer_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, branch [..., width]; weight, bias [width], in float32 or, as FSDP gathers them, in x's dtype.

    Returns:
        x + branch and its LayerNorm in x's dtype, mean and 1 / standard deviation [..., 1] in float32.
        Without a branch the first is empty: it would be x.
    """
    x = x.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    total = torch.empty_like(x) if branch is not None else x.new_empty(0)
    normed = torch.empty_like(x)
    mean, rstd = (x.new_empty(*x.shape[:-1], 1, dtype=torch.float32) for _ in range(2))
    block = 4 if width <= 1024 else 2
    wrap_triton(_kernel)[(triton.cdiv(rows, block),)](
        x, x if branch is None else branch.contiguous(), weight, bias, total, normed, mean, rstd,
        rows, width, EPS=eps, HAS_BRANCH=branch is not None, ROWS=block,
        PAD=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return total, normed, mean, rstd


def _setup_context(ctx, inputs, output):
    x, branch, weight, bias, _ = inputs
    total, _, mean, rstd = output
    ctx.has_branch = branch is not None
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(total if ctx.has_branch else x, weight, bias, mean, rstd)


def _backward(ctx, grad_total, grad_normed, _grad_mean, _grad_rstd):
    total, weight, bias, mean, rstd = ctx.saved_tensors
    grad, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        *(grad_normed.float(), total.float(), [total.shape[-1]], mean, rstd),
        *(weight.float(), bias.float(), [True, True, True]),
    )
    if ctx.has_branch and grad_total is not None:
        grad = grad + grad_total
    grad = grad.to(total.dtype)
    return (
        grad,
        grad if ctx.has_branch else None,
        grad_weight.to(weight.dtype),
        grad_bias.to(bias.dtype),
        None,
    )


add_layer_norm.register_autograd(_backward, setup_context=_setup_context)
