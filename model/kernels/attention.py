"""Attention: PyTorch's own behind one function, and attention divided into space and time."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .fp8 import Linear, Quantized, quantize_columns
from .projection import HAS_TRITON, kernels_take_products, project

if HAS_TRITON:
    from . import triton_attention

# "sdpa" lets PyTorch choose the fastest kernel that fits; the others insist on one. "auto" is the same, but
# takes our Triton kernels for divided attention.
ATTENTION_BACKENDS = {
    "auto": None,
    "sdpa": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
# What the Triton kernels take.
LARGEST_HEAD = 128
LONGEST_BACKWARD = 255  # patches a frame: backward holds all keys of a tile at once
MOST_FRAMES = 63  # a tile over time holds all frames of a position, and the class token


def attend(q: Tensor, k: Tensor, v: Tensor, backend: str = "auto", causal: bool = False) -> Tensor:
    """softmax(q kᵀ / √size) v of q [B, Lq, heads, size] and k, v [B, Lk, heads, size], shaped as q."""
    kernel = ATTENTION_BACKENDS[backend]
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        x = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal
        )
    return x.transpose(1, 2)


def divided_attention(
    x: Tensor | Quantized,
    qkv: Linear,
    num_frames: int,
    heads: int,
    over: str,
    backend: str = "auto",
    factors: Tensor | None = None,
) -> Tensor | Quantized:
    """Attention in which a patch sees the class token and its group, and the class token sees all tokens.

    Args:
        x: [B, 1 + T·n, width], tokens as [class, frame 0 patches, frame 1 patches, ...].
        qkv: the layer that makes their queries, keys and values, width -> 3·width.
        num_frames: T.
        over: "space": a group is the n patches of a frame; "time": a patch position in each of the T frames.
        backend: one of ATTENTION_BACKENDS.
        factors: [width], what the output is multiplied by to be e4m3, for an Fp8Linear; None: it is not.

    Returns:
        [B, 1 + T·n, width], before the output projection.
    """
    tokens = x.values if isinstance(x, Quantized) else x
    if backend == "auto" and kernels_take_products(tokens) and _sizes_fit(tokens, num_frames, heads, over):
        value, _ = project(x, qkv, for_kernel=True)
        if factors is not None:
            out = triton_attention.divided_attention_fp8(value, num_frames, heads, over == "time", factors)
            return Quantized(out, torch.ones_like(out[..., :1], dtype=torch.float32))
        return triton_attention.divided_attention(value, qkv.bias, num_frames, heads, over == "time")
    y = plain_divided_attention(qkv(x), num_frames, heads, over, backend)
    return y if factors is None else quantize_columns(y, factors)


def plain_divided_attention(qkv: Tensor, num_frames: int, heads: int, over: str, backend: str) -> Tensor:
    """The same by PyTorch's attention, of packed queries, keys and values: [B, 1 + T·n, 3·width]."""
    B, L, _ = qkv.shape
    T, n = num_frames, (L - 1) // num_frames
    q, k, v = qkv.view(B, L, 3, heads, -1).unbind(2)  # [B, L, heads, size] each
    (class_q, q), (class_k, patch_k), (class_v, patch_v) = (u.split([1, T * n], dim=1) for u in (q, k, v))

    class_out = attend(class_q, k, v, backend)  # [B, 1, heads, size]

    # Patches attend within their group; the class token joins every group as one more key.
    q, k, v = (_group(u, T, over) for u in (q, patch_k, patch_v))  # [B, groups, members, heads, size]
    groups = q.shape[1]
    k = torch.cat([class_k[:, None].expand(-1, groups, -1, -1, -1), k], dim=2)
    v = torch.cat([class_v[:, None].expand(-1, groups, -1, -1, -1), v], dim=2)
    out = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), backend)
    out = out.unflatten(0, (B, groups))
    if over == "time":
        out = out.transpose(1, 2)  # [B, T, n, heads, size]

    return torch.cat([class_out, out.flatten(1, 2)], dim=1).flatten(2)


def _group(u: Tensor, T: int, over: str) -> Tensor:
    """[B, T·n, heads, size] -> [B, T, n, heads, size] over space, [B, n, T, heads, size] over time."""
    u = u.unflatten(1, (T, -1))
    return u.transpose(1, 2) if over == "time" else u


def _sizes_fit(x: Tensor, num_frames: int, heads: int, over: str) -> bool:
    """Whether the kernels take x [B, 1 + T·n, width]."""
    patches = (x.shape[1] - 1) // num_frames
    short = patches <= LONGEST_BACKWARD or not torch.is_grad_enabled()
    return (num_frames <= MOST_FRAMES if over == "time" else short) and x.shape[2] // heads <= LARGEST_HEAD
