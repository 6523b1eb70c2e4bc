"""Launches the kernels of divided attention, as operators that autograd and torch.compile know."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

from . import triton_fp8
from .triton_attention_kernels import (
    class_token_grad_kernel,
    class_token_kernel,
    divided_attention_grad_kernel,
    divided_attention_kernel,
)
from .triton_heads import split_head

LOG2E = 1.4426950408889634
TIME_TILE = 64


def divided_attention(qkv: Tensor, bias: Tensor, num_frames: int, heads: int, over_time: bool) -> Tensor:
    """A patch sees the class token and its group, the class token sees all.

    Args:
        qkv: [B, 1 + T·n, 3·width], for each token its query, key and value.
        bias: [3·width], what was added to every row of qkv: it is not read, but gets its gradient from here.
            So qkv is to be computed with the bias detached.

    Returns:
        [B, 1 + T·n, width].
    """
    return divided_attention_forward(qkv, bias, num_frames, heads, over_time)[0]


def _geometry(qkv: Tensor, num_frames: int, heads: int, over_time: bool) -> tuple[int, int, int, int]:
    """(head size, patches a frame, members of a tile, tiles)."""
    n = (qkv.shape[1] - 1) // num_frames
    size = qkv.shape[2] // (3 * heads)
    if not over_time:
        return size, n, n, num_frames
    positions = min((TIME_TILE - 1) // num_frames, n)
    return size, n, positions * num_frames, triton.cdiv(n, positions)


def _constants(qkv: Tensor, size: int, num_frames: int, heads: int, over_time: bool) -> dict[str, Any]:
    head, tail = split_head(size)
    return {
        "SCALE": size**-0.5 * LOG2E,
        "T": num_frames,
        "TIME": over_time,
        "HEADS": heads,
        "SIZE": size,
        "HEAD": head,
        "TAIL": tail,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",  # of no matter to half precision
    }


def forward_blocks(columns: int) -> dict[str, int]:
    """Rows and keys that a program of the forward kernel holds at a time, its warps.

    As measured fastest with 64 and 128 columns a head; those between by the registers that they leave.
    """
    return {"ROWS": 64, "KEYS": 64, "num_warps": 4, "num_stages": 2 if columns <= 80 else 1}


def backward_blocks(members: int, columns: int) -> dict[str, int]:
    """The same for the backward kernel, whose programs hold all keys of a tile."""
    keys = max(16, triton.next_power_of_2(members + 1))
    rows = 64 if keys <= 64 and columns <= 64 else 32
    if keys * columns > 256 * 64:
        rows = 16  # 32 spill more, and of 128 columns do not fit the shared memory of a Hopper GPU
    warps = 4 if keys * columns <= 128 * 64 else 8
    return {"ROWS": min(rows, keys), "KEYS": keys, "num_warps": warps, "num_stages": 1}


@triton_op("tvtsv2::divided_attention_forward", mutates_args=())
def divided_attention_forward(
    qkv: Tensor, bias: Tensor, num_frames: int, heads: int, over_time: bool
) -> tuple[Tensor, Tensor]:
    """qkv [B, L, 3·width], bias [3·width] -> out [B, L, width], lse [B, heads, L]."""
    return _forward(qkv, num_frames, heads, over_time, None)


@triton_op("tvtsv2::divided_attention_fp8", mutates_args=())
def divided_attention_fp8(
    qkv: Tensor, num_frames: int, heads: int, over_time: bool, factors: Tensor
) -> Tensor:
    """The output times factors [width], float32, as e4m3, [B, L, width]; without gradients."""
    return _forward(qkv, num_frames, heads, over_time, factors)[0]


def _forward(
    qkv: Tensor, num_frames: int, heads: int, over_time: bool, factors: Tensor | None
) -> tuple[Tensor, Tensor]:
    qkv = qkv.contiguous()
    B, L, _ = qkv.shape
    size, n, members, tiles = _geometry(qkv, num_frames, heads, over_time)
    constants = _constants(qkv, size, num_frames, heads, over_time)
    blocks = forward_blocks(constants["HEAD"] + constants["TAIL"])
    out = qkv.new_empty(B, L, heads * size, dtype=qkv.dtype if factors is None else triton_fp8.VALUES)
    lse = qkv.new_empty(B, heads, L, dtype=torch.float32)
    scaling = lse if factors is None else factors  # the first is not read
    class_out = qkv.new_empty(B, tiles, heads, size, dtype=torch.float32)
    class_lse = qkv.new_empty(B, tiles, heads, dtype=torch.float32)
    row_blocks = triton.cdiv(members + 1, blocks["ROWS"])
    wrap_triton(divided_attention_kernel)[(heads, tiles * row_blocks, B)](
        qkv, out, lse, class_out, class_lse, scaling, n, L, members, tiles,
        HAS_FACTORS=factors is not None, **constants, **blocks,
    )  # fmt: skip
    wrap_triton(class_token_kernel)[(heads, B)](
        class_out, class_lse, out, lse, scaling, L, tiles, HAS_FACTORS=factors is not None,
        HEADS=heads, SIZE=size, PAD=triton.next_power_of_2(size), TILES=triton.next_power_of_2(tiles),
    )  # fmt: skip
    return out, lse


@triton_op("tvtsv2::divided_attention_backward", mutates_args=())
def divided_attention_backward(
    grad_out: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, num_frames: int, heads: int, over_time: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv, [B, L, 3·width], and in float32 of the bias in it, in parts [B, tiles, 3·width]."""
    qkv, grad_out = qkv.contiguous(), grad_out.contiguous()
    B, L, packed = qkv.shape
    size, n, members, tiles = _geometry(qkv, num_frames, heads, over_time)
    constants = _constants(qkv, size, num_frames, heads, over_time)
    grad_qkv = torch.empty_like(qkv)
    class_grad, bias_grad = (qkv.new_empty(B, tiles, packed, dtype=torch.float32) for _ in range(2))
    wrap_triton(divided_attention_grad_kernel)[(heads, tiles, B)](
        qkv, out, lse, grad_out, grad_qkv, class_grad, bias_grad, n, L, members, tiles,
        **constants, **backward_blocks(members, constants["HEAD"] + constants["TAIL"]),
    )  # fmt: skip
    wrap_triton(class_token_grad_kernel)[(triton.cdiv(packed, 256), B)](
        class_grad, grad_qkv, L, tiles, WIDTH=packed, COLUMNS=256
    )
    return grad_qkv, bias_grad


def _setup_context(ctx, inputs, output):
    qkv, bias, *ctx.shape = inputs
    ctx.bias_dtype = bias.dtype
    ctx.set_materialize_grads(False)  # there is none of lse
    ctx.save_for_backward(qkv, *output)


def _backward(ctx, grad_out, _grad_lse):
    grad_qkv, bias_parts = divided_attention_backward(grad_out, *ctx.saved_tensors, *ctx.shape)
    return grad_qkv, bias_parts.sum((0, 1)).to(ctx.bias_dtype), None, None, None


divided_attention_forward.register_autograd(_backward, setup_context=_setup_context)
