"""Attention divided into space and time. Tokens lie as [class, frame 0 patches, frame 1 patches, ...]."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers import attend

try:
    from model import triton_attention
except ImportError:  # Triton comes with PyTorch for NVIDIA's GPUs, not everywhere else
    triton_attention = None


class DividedAttention(nn.Module):
    """Self-attention in which a patch sees the class token and the other members of its group.

    over="space": a group is a frame, its members the n patches kept of it.
    over="time":  a group is a patch position, its members that patch in each of the T frames.
    The class token sees every token. The backend "auto" takes the Triton kernels where they run and pay: on a
    GPU in half precision.
    """

    def __init__(self, width: int, heads: int, over: str, backend: str = "auto"):
        super().__init__()
        self.heads = heads
        self.over = over
        self.backend = backend
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """x [B, 1 + T·n, width] -> the same shape; num_frames is T."""
        return self.proj(self.before_projection(x, num_frames))

    def before_projection(self, x: Tensor, num_frames: int) -> Tensor:
        """What `forward` projects, of the same shape."""
        kernels = triton_attention if self.backend == "auto" else None
        if kernels is not None and kernels.supports(x, num_frames, self.heads, self.over):
            bias = self.qkv.bias
            qkv = F.linear(x, self.qkv.weight, bias.detach())
            return kernels.triton_divided_attention(qkv, bias, num_frames, self.heads, self.over)
        return self._attend(self.qkv(x), num_frames)

    def _attend(self, qkv: Tensor, T: int) -> Tensor:
        """The same by PyTorch's attention: [B, 1 + T·n, 3·width] -> [B, 1 + T·n, width]."""
        B, L, _ = qkv.shape
        n = (L - 1) // T
        q, k, v = qkv.view(B, L, 3, self.heads, -1).unbind(2)  # [B, L, heads, size] each
        (class_q, q), (class_k, patch_k), (class_v, patch_v) = (u.split([1, T * n], dim=1) for u in (q, k, v))

        class_out = attend(class_q, k, v, self.backend)  # [B, 1, heads, size]

        # Patches attend within their group; the class token joins every group as one more key.
        q, k, v = (self._group(u, T) for u in (q, patch_k, patch_v))  # [B, groups, members, heads, size]
        groups = q.shape[1]
        k = torch.cat([class_k[:, None].expand(-1, groups, -1, -1, -1), k], dim=2)
        v = torch.cat([class_v[:, None].expand(-1, groups, -1, -1, -1), v], dim=2)
        out = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), self.backend)
        out = out.unflatten(0, (B, groups))
        if self.over == "time":
            out = out.transpose(1, 2)  # [B, T, n, heads, size]

        return torch.cat([class_out, out.flatten(1, 2)], dim=1).flatten(2)

    def _group(self, u: Tensor, T: int) -> Tensor:
        """[B, T·n, heads, size] -> [B, T, n, heads, size] over space, [B, n, T, heads, size] over time."""
        u = u.unflatten(1, (T, -1))
        return u.transpose(1, 2) if self.over == "time" else u

    def init_as_nothing(self) -> None:
        """The official start of the temporal attention: whatever its input, its output is zero.

        The values are zero because qkv is, and q and k get no gradient while v is zero. Training leaves this
        saddle through v alone.
        """
        for parameter in (self.qkv.weight, self.qkv.bias, self.proj.bias):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.proj.weight)
