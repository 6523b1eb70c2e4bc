"""Residual sum and LayerNorm in one Triton kernel, and their backward: each number is read and written once.

Backward also sums over the rows what the three vectors get as gradient: LayerNorm's weight and bias, and the
bias of the projection that made the branch, as the kernel of divided attention does for the one of qkv.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from . import triton_fp8
from .triton_fp8 import scale_for

PROCESSORS = 132  # of an H100 or H200


@triton.jit
def _add_norm_kernel(
    x, branch, weight, bias, total, normed, mean, rstd, values, scales, rows, width,
    EPS: tl.constexpr, HAS_BRANCH: tl.constexpr, FP8: tl.constexpr, ROWS: tl.constexpr, PAD: tl.constexpr,
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
    if FP8:
        scale = scale_for(tl.max(tl.abs(n), axis=1))
        tl.store(values + at, (n * (1 / scale)[:, None]).to(values.dtype.element_ty), mask=mask)
        tl.store(scales + row, scale, mask=row < rows)
    tl.store(mean + row, m, mask=row < rows)
    tl.store(rstd + row, r, mask=row < rows)


@triton.jit
def _add_norm_grad_kernel(
    grad_total, grad_normed, total, weight, mean, rstd, grad, sums, rows, width, parts,
    HAS_TOTAL: tl.constexpr, OF_BRANCH: tl.constexpr, ROWS: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    column = tl.arange(0, PAD)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    of_weight = tl.zeros((ROWS, PAD), tl.float32)
    of_bias = tl.zeros((ROWS, PAD), tl.float32)
    of_branch = tl.zeros((ROWS, PAD), tl.float32)
    for first in range(part * ROWS, rows, parts * ROWS):
        row = first + tl.arange(0, ROWS)
        at = row.to(tl.int64)[:, None] * width + column[None, :]
        mask = (row[:, None] < rows) & (column[None, :] < width)
        s = tl.load(total + at, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(grad_normed + at, mask=mask, other=0.0).to(tl.float32)
        m = tl.load(mean + row, mask=row < rows, other=0.0)
        r = tl.load(rstd + row, mask=row < rows, other=0.0)
        hat = (s - m[:, None]) * r[:, None]
        scaled = g * w[None, :]
        along_hat = tl.sum(scaled * hat, axis=1) / width
        along_mean = tl.sum(scaled, axis=1) / width
        to = (scaled - hat * along_hat[:, None] - along_mean[:, None]) * r[:, None]
        if HAS_TOTAL:
            to += tl.load(grad_total + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad + at, to.to(grad.dtype.element_ty), mask=mask)
        of_weight += g * hat
        of_bias += g
        if OF_BRANCH:
            of_branch += to
    here = sums + part * 3 * width + column
    tl.store(here, tl.sum(of_weight, axis=0), mask=column < width)
    tl.store(here + width, tl.sum(of_bias, axis=0), mask=column < width)
    tl.store(here + 2 * width, tl.sum(of_branch, axis=0), mask=column < width)


# ------------------------------------------------------------------ launches


def backward_blocks(width: int) -> tuple[int, int]:
    """Rows that a program of the backward kernel takes at a time; the programs, as many as run at once."""
    pad = triton.next_power_of_2(width)
    return max(1, 1024 // pad), PROCESSORS * (6 if pad <= 1024 else 3)


@triton_op("tvtsv2::add_layer_norm", mutates_args=())
def add_layer_norm(
    x: Tensor,
    branch: Tensor | None,
    branch_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    fp8: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, branch [..., width]; weight, bias [width], in float32 or, as FSDP gathers them, in x's dtype.

    branch_bias [width], detached, is in branch already: given, it gets its gradient from here.

    Returns:
        x + branch and its LayerNorm in x's dtype, mean and 1 / standard deviation [..., 1] in float32; with
        fp8 also the LayerNorm's values and scales, as `fp8.Quantized` has them, without gradients.
        Without a branch the first is empty: it would be x.
    """
    x = x.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    total = torch.empty_like(x) if branch is not None else x.new_empty(0)
    normed = torch.empty_like(x)
    mean, rstd = (x.new_empty(*x.shape[:-1], 1, dtype=torch.float32) for _ in range(2))
    values = torch.empty_like(x, dtype=triton_fp8.VALUES) if fp8 else x.new_empty(0)
    scales = torch.empty_like(mean) if fp8 else x.new_empty(0)
    block = 4 if width <= 1024 else 2
    wrap_triton(_add_norm_kernel)[(triton.cdiv(rows, block),)](
        x, x if branch is None else branch.contiguous(), weight, bias, total, normed, mean, rstd,
        values, scales, rows, width, EPS=eps, HAS_BRANCH=branch is not None, FP8=fp8, ROWS=block,
        PAD=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return total, normed, mean, rstd, values, scales


@triton_op("tvtsv2::add_layer_norm_backward", mutates_args=())
def add_layer_norm_backward(
    grad_total: Tensor | None,
    grad_normed: Tensor,
    total: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    of_branch: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the sum, [..., width], and in float32 of weight, bias and branch_bias, in parts.

    The latter [parts, 3, width]; without of_branch the third is zero.
    """
    grad_normed = grad_normed.contiguous()
    width = total.shape[-1]
    rows = total.numel() // width
    block, parts = backward_blocks(width)  # as many for few rows: one compiled graph then does for any number
    grad = torch.empty_like(total)
    sums = total.new_empty(parts, 3, width, dtype=torch.float32)
    wrap_triton(_add_norm_grad_kernel)[(parts,)](
        grad_normed if grad_total is None else grad_total.contiguous(),
        grad_normed, total, weight, mean, rstd, grad, sums, rows, width, parts,
        HAS_TOTAL=grad_total is not None, OF_BRANCH=of_branch, ROWS=block,
        PAD=triton.next_power_of_2(width), num_warps=4 if width <= 1024 else 8,
    )  # fmt: skip
    return grad, sums


def _setup_context(ctx, inputs, output):
    x, branch, branch_bias, weight, bias, *_ = inputs
    total, _, mean, rstd, *_ = output
    ctx.has_branch = branch is not None
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (branch_bias, weight, bias)]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(total if ctx.has_branch else x, weight, mean, rstd)


def _backward(ctx, grad_total, grad_normed, *_):
    of_branch, of_weight, of_bias = ctx.dtypes
    if not ctx.has_branch:
        grad_total = None  # of an empty tensor
    grad, parts = add_layer_norm_backward(grad_total, grad_normed, *ctx.saved_tensors, of_branch is not None)
    sums = parts.sum(0)
    return (
        grad,
        grad if ctx.has_branch else None,
        None if of_branch is None else sums[2].to(of_branch),
        sums[0].to(of_weight),
        sums[1].to(of_bias),
        None,
        None,
    )


add_layer_norm.register_autograd(_backward, setup_context=_setup_context)
