"""The MLP's activation as a Triton kernel whose backward also sums up the gradient of the bias before it.

By itself that sum would read the largest tensor of a block, [tokens, 4·width], once more.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

# Numbers a program of the forward kernel takes. Columns of a program of the backward kernel, rows that it
# takes at a time, and how often.
FORWARD, COLUMNS, ROWS, STEPS = 4096, 128, 32, 16


# ------------------------------------------------------------------ kernels


@triton.jit
def _cumulative(x, QUICK: tl.constexpr):
    """What the activation multiplies x by: a logistic, or the normal distribution's cumulative function."""
    if QUICK:
        return 1 / (1 + tl.exp2(x * (-1.702 * 1.4426950408889634)))
    return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)


@triton.jit
def _slope(x, c, QUICK: tl.constexpr):
    """The derivative of that factor, which is c at x."""
    if QUICK:
        return 1.702 * c * (1 - c)
    return 0.3989422804014327 * tl.exp2(x * x * (-0.5 * 1.4426950408889634))


@triton.jit
def _activation_kernel(hidden, out, numel, QUICK: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(hidden + at, mask=at < numel, other=0.0)
    y = x.to(tl.float32) * _cumulative(x.to(tl.float32), QUICK)
    tl.store(out + at, y.to(x.dtype), mask=at < numel)


@triton.jit
def _activation_grad_kernel(
    hidden, grad_out, grad_hidden, bias_grad, rows, width,
    QUICK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    first = part.to(tl.int64) * ROWS * STEPS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        row = first + step * ROWS
        at = row[:, None] * width + column[None, :]
        mask = (row[:, None] < rows) & (column[None, :] < width)
        x = tl.load(hidden + at, mask=mask, other=0.0)
        grad = tl.load(grad_out + at, mask=mask, other=0.0).to(tl.float32)
        exact = x.to(tl.float32)
        c = _cumulative(exact, QUICK)
        grad = grad * (c + exact * _slope(exact, c, QUICK))
        tl.store(grad_hidden + at, grad.to(x.dtype), mask=mask)
        total += grad
    tl.store(bias_grad + part * width + column, tl.sum(total, axis=0), mask=column < width)


# ------------------------------------------------------------------ launches


@triton_op("tvtsv2::activation_forward", mutates_args=())
def activation_forward(hidden: Tensor, bias: Tensor, quick: bool) -> Tensor:
    """The activation of hidden [..., F], the same shape.

    Args:
        bias: [F], what was added to every row of hidden: it is not read, but gets its gradient from here. So
            hidden is to be computed with the bias detached.
        quick: whether it is quick_gelu; otherwise gelu, the exact one.
    """
    hidden = hidden.contiguous()
    out = torch.empty_like(hidden)
    numel = hidden.numel()
    wrap_triton(_activation_kernel)[(triton.cdiv(numel, FORWARD),)](
        hidden, out, numel, QUICK=quick, BLOCK=FORWARD, num_warps=8
    )
    return out


@triton_op("tvtsv2::activation_backward", mutates_args=())
def activation_backward(grad_out: Tensor, hidden: Tensor, quick: bool) -> tuple[Tensor, Tensor]:
    """Gradients of hidden, [..., F], and in float32 of the bias in it, in parts [parts, F]."""
    hidden, grad_out = hidden.contiguous(), grad_out.contiguous()
    width = hidden.shape[-1]
    rows = hidden.numel() // width
    parts = triton.cdiv(rows, ROWS * STEPS)
    grad_hidden = torch.empty_like(hidden)
    bias_grad = hidden.new_empty(parts, width, dtype=torch.float32)
    wrap_triton(_activation_grad_kernel)[(triton.cdiv(width, COLUMNS), parts)](
        hidden, grad_out, grad_hidden, bias_grad, rows, width,
        QUICK=quick, ROWS=ROWS, COLUMNS=COLUMNS, STEPS=STEPS, num_warps=8,
    )  # fmt: skip
    return grad_hidden, bias_grad


def _setup_context(ctx, inputs, output):
    hidden, bias, ctx.quick = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(hidden)


def _backward(ctx, grad_out):
    grad_hidden, bias_parts = activation_backward(grad_out, *ctx.saved_tensors, ctx.quick)
    return grad_hidden, bias_parts.sum(0).to(ctx.bias_dtype), None


activation_forward.register_autograd(_backward, setup_context=_setup_context)
