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

import triton
import triton.language as tl

from .triton_heads import (
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
    store_tiles,
    store_vectors,
    sum_over_columns,
    sum_over_rows,
    times,
    weighted,
    zero_tiles,
    zero_vectors,
)


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
def divided_attention_kernel(
    qkv, out, lse, class_out, class_lse, factors, n, L, members, tiles, HAS_FACTORS: tl.constexpr,
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
    part = (b * tiles + tile) * HEADS + head
    to = shifted(shifted(across, class_out + part * SIZE), 0 * r[:, None])
    store_tiles(to, acc, is_class, in_head)
    if HAS_FACTORS:
        acc = times(acc, as_rows(load_vectors(factors + head * SIZE, dim, SIZE)))
    to = shifted(across, out + (b * L + token[:, None]) * width + head * SIZE)
    store_tiles(to, acc, patch, in_head)
    tl.store(lse + (b * HEADS + head) * L + token, log_total, mask=patch)
    tl.store(class_lse + part + 0 * r, log_total, mask=is_class)


@triton.jit
def divided_attention_grad_kernel(
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
def class_token_kernel(
    class_out, class_lse, out, lse, factors, L, tiles, HAS_FACTORS: tl.constexpr,
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
    if HAS_FACTORS:
        total *= tl.load(factors + head * SIZE + dim, mask=dim < SIZE, other=0.0)
    to = out + b * L * HEADS * SIZE + head * SIZE + dim
    tl.store(to, total.to(out.dtype.element_ty), mask=dim < SIZE)
    tl.store(lse + (b * HEADS + head) * L, log_total)


@triton.jit
def class_token_grad_kernel(class_grad, grad_qkv, L, tiles, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """The class token's row of the gradient of qkv: the sum of its parts."""
    column, b = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.program_id(1).to(tl.int64)
    total = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tiles):
        part = class_grad + (b * tiles + tile) * WIDTH + column
        total += tl.load(part, mask=column < WIDTH, other=0.0)
    to = grad_qkv + b * L * WIDTH + column
    tl.store(to, total.to(grad_qkv.dtype.element_ty), mask=column < WIDTH)
