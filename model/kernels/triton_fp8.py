"""What makes the inputs of fp8 products, as Triton kernels that quantise their rows before they are written.

So no pass over memory is spent on quantising alone, but for attention in training, whose programs hold one
head of a row, and for the gradients that arrive there. A program holds whole rows, in pieces as
`triton_heads` has them: 1280 numbers as 1024 and 256, not as 2048. LayerNorm's kernel for training is in
`triton_norm`, attention's for inference in `triton_attention`.
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
    store_vectors,
    sum_over_columns,
    times,
    zero_vectors,
)

VALUES = torch.float8_e4m3fn
ALIGNED = 16  # numbers, of which rows of a factor have a multiple
GRAD_PROGRAMS = 528  # of the activation's backward kernel: as many as run at once on an H100 or H200

# ------------------------------------------------------------------ kernels


@triton.jit
def _in_float32(pair):
    return [piece.to(tl.float32) for piece in pair]


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
def _slope(x, c, QUICK: tl.constexpr):
    """The derivative of that factor, which is c at x."""
    if QUICK:
        return 1.702 * c * (1 - c)
    else:
        return 0.3989422804014327 * tl.exp2(x * x * (-0.5 * 1.4426950408889634))


@triton.jit
def _slopes(pair, factors, QUICK: tl.constexpr):
    if len(pair) == 1:
        return (_slope(pair[0], factors[0], QUICK),)
    else:
        return _slope(pair[0], factors[0], QUICK), _slope(pair[1], factors[1], QUICK)


@triton.jit
def scale_for(peak):
    """As fp8.scales_for: the least power of two by which 448 is no smaller than peak."""
    bits = tl.maximum(peak, 1e-30).to(tl.int32, bitcast=True) + 0x1FFFFF
    return (bits & 0x7F800000).to(tl.float32, bitcast=True) * 0.00390625


@triton.jit
def _store_quantized(pair, values, scales, to, row, real, in_row):
    """Rows, zero outside, as e4m3 times a scale, as fp8.quantize_rows does it. to: their places."""
    peak = tl.max(tl.abs(pair[0]), axis=1)
    for i in tl.static_range(1, len(pair)):
        peak = tl.maximum(peak, tl.max(tl.abs(pair[i]), axis=1))
    scale = scale_for(peak)
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
    n = times(scaled(centred, rstd[:, None]), as_rows(load_vectors(weight, dim, WIDTH)))
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


@triton.jit
def _store_quantized_row(numbers, dim, values, scales, row, WIDTH: tl.constexpr):
    peak = tl.max(tl.abs(numbers[0]), axis=0)
    for i in tl.static_range(1, len(numbers)):
        peak = tl.maximum(peak, tl.max(tl.abs(numbers[i]), axis=0))
    scale = scale_for(peak)
    store_vectors(shifted(dim, values + row * WIDTH), scaled(numbers, 1 / scale), dim, WIDTH)
    tl.store(scales + row, scale)


@triton.jit
def _activation_grad_kernel(
    hidden, grad_out, out, out_scales, grad_hidden, grad_scales, bias_grad, rows, parts,
    QUICK: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    dim = columns(HEAD, TAIL)
    total = zero_vectors(dim)
    row = part.to(tl.int64)
    for _ in range(part, rows, parts):
        at = row * WIDTH
        x = load_vectors(hidden + at, dim, WIDTH)
        c = [_factor(piece, QUICK) for piece in x]
        slopes = plus(c, times(x, _slopes(x, c, QUICK)))
        grad = times(load_vectors(grad_out + at, dim, WIDTH), slopes)
        _store_quantized_row(times(x, c), dim, out, out_scales, row, WIDTH)
        _store_quantized_row(grad, dim, grad_hidden, grad_scales, row, WIDTH)
        total = plus(total, grad)
        row += parts
    store_vectors(shifted(dim, bias_grad + part * WIDTH), total, dim, WIDTH)


@triton.jit
def _transpose_kernel(values, scales, largest, to, rows, width, padded, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = row < rows
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(values + at, mask=real[:, None] & (column[None, :] < width), other=0.0).to(tl.float32)
    # The quotient of two powers of two: of their exponents the difference.
    scale = tl.load(scales + row, mask=real, other=0.0).to(tl.int32, bitcast=True)
    bits = scale - tl.load(largest).to(tl.int32, bitcast=True) + 0x3F800000
    x = (x * tl.maximum(bits, 0).to(tl.float32, bitcast=True)[:, None]).to(to.dtype.element_ty)
    at = column.to(tl.int64)[:, None] * padded + row[None, :]
    tl.store(to + at, tl.trans(x), mask=(column[:, None] < width) & (row[None, :] < padded))


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


@triton_op("tvtsv2::activation_backward_fp8", mutates_args=())
def activation_backward(
    grad_out: Tensor, hidden: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The activation's backward, [..., F], which also makes once more what the forward pass did not keep.

    Returns:
        Values and scales of the activation of hidden; those of the gradient of hidden; in float32 that of the
        bias in hidden, in parts [parts, F].
    """
    hidden, grad_out = hidden.contiguous(), grad_out.contiguous()
    width = hidden.shape[-1]
    out, out_scales = _outputs(hidden)
    grad_hidden, grad_scales = _outputs(hidden)
    bias_grad = hidden.new_empty(GRAD_PROGRAMS, width, dtype=torch.float32)
    head, tail = split_head(width)
    wrap_triton(_activation_grad_kernel)[(GRAD_PROGRAMS,)](
        hidden, grad_out, out, out_scales, grad_hidden, grad_scales, bias_grad,
        hidden.numel() // width, GRAD_PROGRAMS,
        QUICK=activation == "quick_gelu", WIDTH=width, HEAD=head, TAIL=tail, num_warps=8,
    )  # fmt: skip
    return out, out_scales, grad_hidden, grad_scales, bias_grad


@triton_op("tvtsv2::transpose_fp8", mutates_args=())
def transpose(values: Tensor, scales: Tensor, largest: Tensor) -> Tensor:
    """Values [R, K] with scales [R, 1] as [K, R'], whose scale is `largest` [] everywhere.

    Scales are powers of two. R' is R up to a multiple of ALIGNED, with zeros.
    """
    rows, width = values.shape
    padded = triton.cdiv(rows, ALIGNED) * ALIGNED
    to = values.new_empty(width, padded)
    grid = (triton.cdiv(padded, 128), triton.cdiv(width, 128))
    wrap_triton(_transpose_kernel)[grid](
        values, scales, largest, to, rows, width, padded, BLOCK=128, num_warps=8
    )
    return to
