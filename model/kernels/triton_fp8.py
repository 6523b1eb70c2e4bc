"""What makes the inputs of fp8 products, as Triton kernels that quantise their rows before they are written.

So no pass over memory is spent on quantising alone, but for attention, whose programs hold one head of a row.
A program holds whole rows, in pieces as `triton_heads` has them: 1280 numbers as 1024 and 256, not as 2048.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from .triton_heads import (
    as_rows,
    columns,
    inside,
    load_tiles,
    load_vectors,
    plus,
    scaled,
    shifted,
    split_head,
    store_tiles,
    sum_over_columns,
)

VALUES = torch.float8_e4m3fn

# ------------------------------------------------------------------ kernels


@triton.jit
def _in_float32(pair):
    return [piece.to(tl.float32) for piece in pair]


@triton.jit
def _times(pair, other):
    if len(pair) == 1:
        return (pair[0] * other[0],)
    else:
        return pair[0] * other[0], pair[1] * other[1]


@triton.jit
def _zero_outside(pair, in_row):
    if len(pair) == 1:
        return (tl.where(in_row[0], pair[0], 0.0),)
    else:
        return tl.where(in_row[0], pair[0], 0.0), tl.where(in_row[1], pair[1], 0.0)


@triton.jit
def _factor(x, QUICK: tl.constexpr):
    """What the activation multiplies x by.

    For gelu, the normal distribution's cumulative function as a logistic of an odd polynomial: gelu is then
    right to 3e-5, far less than what e4m3 rounds off, while the exact one takes longer than the memory does.
    """
    if QUICK:
        slope = 1.702
    else:
        square = tl.minimum(x * x, 50.0)  # from there on it is 0 or 1, and further out the polynomial turns
        slope = 1.5950156 + square * (0.0740114 + square * -0.00070305)
    return 1 / (1 + tl.exp2(x * slope * -1.4426950408889634))


@triton.jit
def _store_quantized(pair, values, scales, to, row, real, in_row):
    """Rows, zero outside, as e4m3 times a scale, as fp8.quantize_rows does it. to: their places."""
    peak = tl.max(tl.abs(pair[0]), axis=1)
    for i in tl.static_range(1, len(pair)):
        peak = tl.maximum(peak, tl.max(tl.abs(pair[i]), axis=1))
    scale = tl.maximum(peak, 1e-30) / 448.0
    store_tiles(shifted(to, values), scaled(pair, (1 / scale)[:, None]), real, in_row)
    tl.store(scales + row, scale, mask=real)


@triton.jit
def _add_norm_fp8_kernel(
    x, branch, weight, bias, total, values, scales, rows,
    EPS: tl.constexpr, HAS_BRANCH: tl.constexpr, KEEP_SUM: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    dim = columns(HEAD, TAIL)
    to = shifted(as_rows(dim), row[:, None] * WIDTH)
    in_row = inside(as_rows(dim), WIDTH)
    s = _in_float32(load_tiles(x, row, WIDTH, dim, WIDTH, real))
    if HAS_BRANCH:
        s = plus(s, _in_float32(load_tiles(branch, row, WIDTH, dim, WIDTH, real)))
        s = _in_float32([piece.to(x.dtype.element_ty) for piece in s])
        if KEEP_SUM:
            store_tiles(shifted(to, total), s, real, in_row)
    mean = tl.sum(s[0], axis=1)
    for i in tl.static_range(1, len(s)):
        mean += tl.sum(s[i], axis=1)
    centred = _zero_outside(shifted(s, -(mean / WIDTH)[:, None]), in_row)
    rstd = 1 / tl.sqrt(sum_over_columns(centred, centred) / WIDTH + EPS)
    n = _times(scaled(centred, rstd[:, None]), as_rows(load_vectors(weight, dim, WIDTH)))
    n = plus(n, as_rows(load_vectors(bias, dim, WIDTH)))
    _store_quantized(n, values, scales, to, row, real, in_row)


@triton.jit
def _quantize_kernel(
    x, values, scales, rows, ACTIVATION: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    dim = columns(HEAD, TAIL)
    to = shifted(as_rows(dim), row[:, None] * WIDTH)
    y = _in_float32(load_tiles(x, row, WIDTH, dim, WIDTH, real))
    if ACTIVATION != "":
        y = [piece * _factor(piece, ACTIVATION == "quick_gelu") for piece in y]
    _store_quantized(y, values, scales, to, row, real, inside(as_rows(dim), WIDTH))


# ------------------------------------------------------------------ launches


def _outputs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Memory for the values and the scales of a tensor shaped as x."""
    return torch.empty_like(x, dtype=VALUES), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)


def blocks(width: int) -> dict[str, int]:
    """Rows that a program takes, the columns of their two pieces, its warps; as measured fastest."""
    head, tail = split_head(width)
    return {"WIDTH": width, "ROWS": max(1, 4096 // head), "HEAD": head, "TAIL": tail, "num_warps": 4}


@triton_op("tvtsv2::add_layer_norm_fp8", mutates_args=())
def add_layer_norm_fp8(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float, keep_sum: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """x, branch [..., width]; weight, bias [width].

    Returns:
        x + branch in x's dtype, empty without a branch or keep_sum; values and scales of its LayerNorm.
    """
    x = x.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    keep_sum = keep_sum and branch is not None
    total = torch.empty_like(x) if keep_sum else x.new_empty(0)
    values, scales = _outputs(x)
    block = blocks(width)
    wrap_triton(_add_norm_fp8_kernel)[(triton.cdiv(rows, block["ROWS"]),)](
        x, x if branch is None else branch.contiguous(), weight, bias, total, values, scales, rows,
        EPS=eps, HAS_BRANCH=branch is not None, KEEP_SUM=keep_sum, **block,
    )  # fmt: skip
    return total, values, scales


@triton_op("tvtsv2::quantize_fp8", mutates_args=())
def quantize(x: Tensor, activation: str = "") -> tuple[Tensor, Tensor]:
    """Values and scales of x [..., K], after quick_gelu or gelu if one is named."""
    x = x.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    values, scales = _outputs(x)
    block = blocks(width)
    wrap_triton(_quantize_kernel)[(triton.cdiv(rows, block["ROWS"]),)](
        x, values, scales, rows, ACTIVATION=activation, **block
    )
    return values, scales
