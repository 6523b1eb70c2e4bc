"""Divided space-time attention as Triton kernels, straight from the packed queries, keys and values.

PyTorch's attention would need the class token's key copied in front of every group, which reads and
writes all keys and values once more. Here a program takes one tile of one head: a frame (space), or
a few patch positions with all their frames (time), and the class token as one more row and column.
Rows and columns of a tile are numbered alike: 0 .. members - 1 are patches, `members` is the class
token. Its own output gathers from all tiles, so each tile gives a part of it.

    space: member r of tile f          is patch r of frame f
    time:  member r of tile j, r = pT+t, is patch jP+p of frame t, P = positions a tile

Softmax is computed in base 2; `lse` is log2 of its denominator, kept for backward. The backward kernel
also sums up the gradient of the bias of qkv, for which another kernel would read all that it writes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from model.precision import dtype_of_products
from model.triton_pieces import (
    as_rows,
    columns,
    divided,
    inside,
    load_tiles,
    load_vectors,
    plus,
    scaled,
    scores,
    shifted,
    split_head,
    store_tiles,
    store_vectors,
    sum_over_columns,
    sum_over_rows,
    weighted,
    zero_tiles,
    zero_vectors,
)

LOG2E = 1.4426950408889634
LARGEST_HEAD = 128
LONGEST_BACKWARD = 255  # patches a frame: backward holds all keys of a tile at once
TIME_TILE = 64


def supports(x: Tensor, num_frames: int, heads: int, over: str) -> bool:
    """Whether the kernels can take the qkv computed from x [B, 1 + T·n, width], and are the faster way."""
    if not x.is_cuda or dtype_of_products(x) not in (torch.bfloat16, torch.float16):
        return False
    patches = (x.shape[1] - 1) // num_frames
    short = patches <= LONGEST_BACKWARD or not torch.is_grad_enabled()
    return (num_frames < TIME_TILE if over == "time" else short) and x.shape[2] // heads <= LARGEST_HEAD


def triton_divided_attention(qkv: Tensor, bias: Tensor, num_frames: int, heads: int, over: str) -> Tensor:
    """A patch sees the class token and its group, the class token sees all, as in DividedAttention.

    Args:
        qkv: [B, 1 + T·n, 3·width], for each token its query, key and value.
        bias: [3·width], what was added to every row of qkv: it is not read, but gets its gradient from here.
            So qkv is to be computed with the bias detached.

    Returns:
        [B, 1 + T·n, width].
    """
    return divided_attention_forward(qkv, bias, num_frames, heads, over == "time")[0]


# ------------------------------------------------------------------ kernels


@triton.jit
def _token(r, tile, n, members, T: tl.constexpr, TIME: tl.constexpr):
    """Token that row r of a tile stands for, its group within the tile, and whether it is a patch."""
    if TIME:
        group = r // T
        position = tile * (members // T) + group
        token = 1 + (r % T) * n + position
        patch = (r < members) & (position < n)
    else:
        group = r * 0
        token = 1 + tile * n + r
        patch = r < members
    return tl.where(r == members, 0, token), group, patch


@triton.jit
def _forward_kernel(
    qkv, out, lse, class_out, class_lse, n, L, members, tiles,
    SCALE: tl.constexpr, T: tl.constexpr, TIME: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr,
    HEAD: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    tile, first = tl.program_id(1) % tiles, tl.program_id(1) // tiles * ROWS
    b = tl.program_id(2).to(tl.int64)
    width = HEADS * SIZE
    stride = 3 * width
    dim = columns(HEAD, TAIL)
    here = qkv + b * L * stride + head * SIZE

    r = first + tl.arange(0, ROWS)
    token, group, patch = _token(r, tile, n, members, T, TIME)
    is_class = r == members
    q = load_tiles(here, token, stride, dim, SIZE, patch | is_class)

    # The class key comes first: the state of the running softmax after it. The class query takes it once, and
    # starts from nothing in the other tiles: a high score of that key would let all others underflow there.
    class_k = load_vectors(here + width, dim, SIZE)
    class_v = load_vectors(here + 2 * width, dim, SIZE)
    score = sum_over_columns(q, as_rows(class_k)) * SCALE
    taken = is_class & (tile > 0)
    high = tl.where(taken, float("-inf"), score)
    total = tl.where(taken, 0.0, 1.0)
    acc = scaled(as_rows(class_v), total[:, None])

    for start in range(0, members, KEYS):
        c = start + tl.arange(0, KEYS)
        key_token, key_group, key_patch = _token(c, tile, n, members, T, TIME)
        k = load_tiles(here + width, key_token, stride, dim, SIZE, key_patch)
        v = load_tiles(here + 2 * width, key_token, stride, dim, SIZE, key_patch)
        s = scores(q, k, PRECISION) * SCALE
        seen = key_patch[None, :]
        if TIME:
            seen = seen & ((group[:, None] == key_group[None, :]) | is_class[:, None])
        s = tl.where(seen, s, float("-inf"))
        new_high = tl.maximum(high, tl.max(s, axis=1))
        p = tl.exp2(s - new_high[:, None])
        fade = tl.exp2(high - new_high)
        total = total * fade + tl.sum(p, axis=1)
        acc = plus(scaled(acc, fade[:, None]), weighted(p.to(v[0].dtype), v, PRECISION))
        high = new_high

    acc = divided(acc, total[:, None])
    log_total = high + tl.log2(total)
    across = as_rows(dim)
    in_head = inside(across, SIZE)
    to = shifted(across, out + (b * L + token[:, None]) * width + head * SIZE)
    store_tiles(to, acc, patch, in_head)
    tl.store(lse + (b * HEADS + head) * L + token, log_total, mask=patch)
    part = (b * tiles + tile) * HEADS + head
    to = shifted(shifted(across, class_out + part * SIZE), 0 * r[:, None])
    store_tiles(to, acc, is_class, in_head)
    tl.store(class_lse + part + 0 * r, log_total, mask=is_class)


@triton.jit
def _backward_kernel(
    qkv, out, lse, grad_out, grad_qkv, class_grad, bias_grad, n, L, members, tiles,
    SCALE: tl.constexpr, T: tl.constexpr, TIME: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr,
    HEAD: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head, tile = tl.program_id(0), tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    width = HEADS * SIZE
    stride = 3 * width
    dim = columns(HEAD, TAIL)
    across = as_rows(dim)
    in_head = inside(across, SIZE)
    here = qkv + b * L * stride + head * SIZE
    grad_here = grad_qkv + b * L * stride + head * SIZE
    # Where the parts of the class token's gradient go, and of the bias's: [B, tiles, 3, heads, size] each.
    at = (b * tiles + tile) * stride + head * SIZE
    part = shifted(across, class_grad + at)
    bias_part = shifted(dim, bias_grad + at)

    c = tl.arange(0, KEYS)
    key_token, key_group, key_patch = _token(c, tile, n, members, T, TIME)
    key_class = c == members
    k = load_tiles(here + width, key_token, stride, dim, SIZE, key_patch | key_class)
    v = load_tiles(here + 2 * width, key_token, stride, dim, SIZE, key_patch | key_class)
    grad_k, grad_v = zero_tiles(KEYS, dim), zero_tiles(KEYS, dim)
    total_q = zero_vectors(dim)

    for start in range(0, members + 1, ROWS):
        r = start + tl.arange(0, ROWS)
        token, group, patch = _token(r, tile, n, members, T, TIME)
        is_class = r == members
        real = patch | is_class
        q = load_tiles(here, token, stride, dim, SIZE, real)
        there = b * L * width + head * SIZE
        o = load_tiles(out + there, token, width, dim, SIZE, real)
        do = load_tiles(grad_out + there, token, width, dim, SIZE, real)
        delta = sum_over_columns(o, do)
        log_total = tl.load(lse + (b * HEADS + head) * L + token, mask=real, other=0.0)

        seen = key_patch[None, :]
        if TIME:
            seen = seen & ((group[:, None] == key_group[None, :]) | is_class[:, None])
        seen = seen | (key_class[None, :] & (patch[:, None] | (tile == 0)))
        seen = seen & real[:, None]
        s = scores(q, k, PRECISION) * SCALE
        p = tl.where(seen, tl.exp2(s - log_total[:, None]), 0.0)
        grad_v = plus(grad_v, weighted(tl.trans(p.to(do[0].dtype)), do, PRECISION))
        grad_p = scores(do, v, PRECISION)
        grad_s = (p * (grad_p - delta[:, None])).to(q[0].dtype)
        grad_k = plus(grad_k, weighted(tl.trans(grad_s), q, PRECISION))
        grad_q = scaled(weighted(grad_s, k, PRECISION), SCALE * 0.6931471805599453)
        store_tiles(shifted(across, grad_here + token[:, None] * stride), grad_q, patch, in_head)
        store_tiles(shifted(part, 0 * r[:, None]), grad_q, is_class, in_head)
        total_q = plus(total_q, sum_over_rows(grad_q))  # rows and columns that stand for no token are zero

    grad_k = scaled(grad_k, SCALE * 0.6931471805599453)
    to = shifted(across, grad_here + key_token[:, None] * stride)
    store_tiles(shifted(to, width), grad_k, key_patch, in_head)
    store_tiles(shifted(to, 2 * width), grad_v, key_patch, in_head)
    store_tiles(shifted(shifted(part, width), 0 * c[:, None]), grad_k, key_class, in_head)
    store_tiles(shifted(shifted(part, 2 * width), 0 * c[:, None]), grad_v, key_class, in_head)
    store_vectors(bias_part, total_q, dim, SIZE)
    store_vectors(shifted(bias_part, width), sum_over_rows(grad_k), dim, SIZE)
    store_vectors(shifted(bias_part, 2 * width), sum_over_rows(grad_v), dim, SIZE)


@triton.jit
def _combine_kernel(
    class_out, class_lse, out, lse, L, tiles,
    HEADS: tl.constexpr, SIZE: tl.constexpr, PAD: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The class token's output from its parts, each the softmax over one tile's keys."""
    head, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tile, dim = tl.arange(0, TILES), tl.arange(0, PAD)
    real = tile < tiles
    part = (b * tiles + tile) * HEADS + head
    log_part = tl.load(class_lse + part, mask=real, other=float("-inf"))
    high = tl.max(log_part, axis=0)
    log_total = high + tl.log2(tl.sum(tl.exp2(log_part - high), axis=0))
    share = tl.exp2(log_part - log_total)
    mask = real[:, None] & (dim[None, :] < SIZE)
    parts = tl.load(class_out + part[:, None] * SIZE + dim[None, :], mask=mask, other=0.0)
    total = tl.sum(share[:, None] * parts, axis=0)
    to = out + b * L * HEADS * SIZE + head * SIZE + dim
    tl.store(to, total.to(out.dtype.element_ty), mask=dim < SIZE)
    tl.store(lse + (b * HEADS + head) * L, log_total)


@triton.jit
def _combine_grad_kernel(class_grad, grad_qkv, L, tiles, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """The class token's row of the gradient of qkv: the sum of its parts."""
    column, b = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.program_id(1).to(tl.int64)
    total = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tiles):
        part = class_grad + (b * tiles + tile) * WIDTH + column
        total += tl.load(part, mask=column < WIDTH, other=0.0)
    to = grad_qkv + b * L * WIDTH + column
    tl.store(to, total.to(grad_qkv.dtype.element_ty), mask=column < WIDTH)


# ------------------------------------------------------------------ launches


def _geometry(qkv: Tensor, num_frames: int, heads: int, over_time: bool) -> tuple[int, int, int, int]:
    """(head size, patches a frame, members of a tile, tiles)."""
    n = (qkv.shape[1] - 1) // num_frames
    size = qkv.shape[2] // (3 * heads)
    if not over_time:
        return size, n, n, num_frames
    positions = min((TIME_TILE - 1) // num_frames, n)
    return size, n, positions * num_frames, triton.cdiv(n, positions)


def _constants(qkv: Tensor, size: int, num_frames: int, heads: int, over_time: bool) -> dict[str, object]:
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
    qkv = qkv.contiguous()
    B, L, _ = qkv.shape
    size, n, members, tiles = _geometry(qkv, num_frames, heads, over_time)
    constants = _constants(qkv, size, num_frames, heads, over_time)
    blocks = forward_blocks(constants["HEAD"] + constants["TAIL"])
    out = qkv.new_empty(B, L, heads * size)
    lse = qkv.new_empty(B, heads, L, dtype=torch.float32)
    class_out = qkv.new_empty(B, tiles, heads, size, dtype=torch.float32)
    class_lse = qkv.new_empty(B, tiles, heads, dtype=torch.float32)
    row_blocks = triton.cdiv(members + 1, blocks["ROWS"])
    wrap_triton(_forward_kernel)[(heads, tiles * row_blocks, B)](
        qkv, out, lse, class_out, class_lse, n, L, members, tiles, **constants, **blocks
    )
    wrap_triton(_combine_kernel)[(heads, B)](
        class_out, class_lse, out, lse, L, tiles,
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
    wrap_triton(_backward_kernel)[(heads, tiles, B)](
        qkv, out, lse, grad_out, grad_qkv, class_grad, bias_grad, n, L, members, tiles,
        **constants, **backward_blocks(members, constants["HEAD"] + constants["TAIL"]),
    )  # fmt: skip
    wrap_triton(_combine_grad_kernel)[(triton.cdiv(packed, 256), B)](
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
