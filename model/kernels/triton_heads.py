"""An attention head's tiles in two pieces, for head sizes that are no power of two.

Triton's tiles have powers of two as their sides, so a head of 80 would be held as 128 columns, three in eight
of them idle: multiplied and kept in registers for nothing. Held as 64 and 16 none is. A pair below is
(main, tail), tiles of the same rows, or vectors, whose columns together are the head's. Where one piece does
it is (main,), and as Triton decides about that while it compiles, costs nothing.
"""

import triton
import triton.language as tl

SMALLEST = 16  # columns that tensor cores take
SMALLEST_SPLIT = 64  # columns of a main piece: narrower ones have the warps do the same work several times


def split_head(size: int) -> tuple[int, int]:
    """(HEAD, TAIL), the columns of a pair's pieces: two powers of two that cover a head, or one and 0.

    The first is the largest power of two below the size, the second the smallest that covers the rest. They
    are taken only where they have fewer columns than one piece: 80 is (64, 16), 96 (64, 32), 112 (128, 0).
    """
    whole = max(SMALLEST, triton.next_power_of_2(size))
    head = whole // 2
    tail = max(SMALLEST, triton.next_power_of_2(size - head))
    return (head, tail) if head >= SMALLEST_SPLIT and head + tail < whole else (whole, 0)


@triton.jit
def columns(HEAD: tl.constexpr, TAIL: tl.constexpr):
    """The numbers of a head's columns, a pair of vectors: `dim` below."""
    if TAIL == 0:
        return (tl.arange(0, HEAD),)
    else:
        return tl.arange(0, HEAD), HEAD + tl.arange(0, TAIL)


@triton.jit
def as_rows(pair):
    """Vectors as tiles of one row."""
    return [piece[None, :] for piece in pair]


@triton.jit
def inside(dim, SIZE: tl.constexpr):
    """Whether columns are the head's."""
    return [piece < SIZE for piece in dim]


@triton.jit
def zero_vectors(dim):
    return [tl.zeros(piece.shape, tl.float32) for piece in dim]


@triton.jit
def zero_tiles(ROWS: tl.constexpr, dim):
    return [tl.zeros((ROWS, piece.shape[0]), tl.float32) for piece in dim]


# ------------------------------------------------------------------ memory


@triton.jit
def load_tiles(start, token, row_stride, dim, SIZE: tl.constexpr, mask):
    """The head's numbers of some tokens, zeros where masked."""
    return [
        tl.load(
            start + token[:, None] * row_stride + piece[None, :],
            mask=mask[:, None] & (piece[None, :] < SIZE),
            other=0.0,
        )
        for piece in dim
    ]


@triton.jit
def load_vectors(start, dim, SIZE: tl.constexpr):
    """The head's numbers of one token, in float32."""
    return [tl.load(start + piece, mask=piece < SIZE, other=0.0).to(tl.float32) for piece in dim]


@triton.jit
def store_tiles(to, pair, mask, in_head):
    """To pointers, in the type of the memory; in_head as from `inside`."""
    for i in tl.static_range(len(pair)):
        tl.store(to[i], pair[i].to(to[i].dtype.element_ty), mask=mask[:, None] & in_head[i])


@triton.jit
def store_vectors(to, pair, dim, SIZE: tl.constexpr):
    """To pointers, in the type of the memory."""
    for i in tl.static_range(len(pair)):
        tl.store(to[i], pair[i].to(to[i].dtype.element_ty), mask=dim[i] < SIZE)


# ------------------------------------------------------------------ arithmetic


@triton.jit
def shifted(pair, by):
    """Plus a number, a pointer, or a column of them."""
    return [by + piece for piece in pair]


@triton.jit
def scaled(pair, by):
    """Times a number, or a column of them."""
    return [piece * by for piece in pair]


@triton.jit
def divided(pair, by):
    return [piece / by for piece in pair]


@triton.jit
def plus(pair, other):
    if len(pair) == 1:
        return (pair[0] + other[0],)
    else:
        return pair[0] + other[0], pair[1] + other[1]


@triton.jit
def times(pair, other):
    if len(pair) == 1:
        return (pair[0] * other[0],)
    else:
        return pair[0] * other[0], pair[1] * other[1]


@triton.jit
def sum_over_rows(pair):
    return [tl.sum(piece, axis=0) for piece in pair]


@triton.jit
def sum_over_columns(pair, other):
    """Of the products of two pairs, in float32: [rows]."""
    total = tl.sum(pair[0].to(tl.float32) * other[0].to(tl.float32), axis=1)
    for i in tl.static_range(1, len(pair)):
        total += tl.sum(pair[i].to(tl.float32) * other[i].to(tl.float32), axis=1)
    return total


@triton.jit
def scores(pair, other, PRECISION: tl.constexpr):
    """pair · otherᵀ: [rows, rows of the other]."""
    s = tl.dot(pair[0], tl.trans(other[0]), input_precision=PRECISION)
    for i in tl.static_range(1, len(pair)):
        s = tl.dot(pair[i], tl.trans(other[i]), s, input_precision=PRECISION)
    return s


@triton.jit
def weighted(weights, pair, PRECISION: tl.constexpr):
    """weights · pair, of weights [any, rows of the pair]: a pair."""
    if len(pair) == 1:
        return (tl.dot(weights, pair[0], input_precision=PRECISION),)
    else:
        # The tail first: Triton lays out a loop's products, which depend on each other, as the last of them
        # asks for, and a tail is too narrow for all warps to share its columns.
        tail = tl.dot(weights, pair[1], input_precision=PRECISION)
        return tl.dot(weights, pair[0], input_precision=PRECISION), tail
