"""What both towers share: attention behind one function, the MLP, and running a stack of blocks."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

try:
    from model import triton_norm
except ImportError:  # Triton comes with PyTorch for NVIDIA's GPUs, not everywhere else
    triton_norm = None

# "sdpa" lets PyTorch choose the fastest kernel that fits; the others insist on one. "auto" is the same, but
# for the divided attention of the video tower (model/attention.py).
ATTENTION_BACKENDS = {
    "auto": None,
    "sdpa": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def attend(q: Tensor, k: Tensor, v: Tensor, backend: str = "auto", causal: bool = False) -> Tensor:
    """softmax(q kᵀ / √size) v of q [B, Lq, heads, size] and k, v [B, Lk, heads, size], shaped as q."""
    kernel = ATTENTION_BACKENDS[backend]
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        x = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal
        )
    return x.transpose(1, 2)


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm that can take the residual sum before it along, and on a GPU in half precision does."""

    def forward(self, x: Tensor) -> Tensor:
        if triton_norm is not None and triton_norm.supports(x):
            return triton_norm.add_layer_norm(x, None, self.weight, self.bias, self.eps)[1]
        return super().forward(x)

    def after_sum(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """x + branch, and its LayerNorm."""
        if triton_norm is not None and triton_norm.supports(x) and branch.dtype == x.dtype:
            return triton_norm.add_layer_norm(x, branch, self.weight, self.bias, self.eps)[:2]
        x = x + branch
        return x, super().forward(x)


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's x · sigmoid(1.702 x), written so that backward needs one stored tensor, not three."""
    return F.silu(1.702 * x) / 1.702


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Mlp(nn.Module):
    """The feed-forward half of a CLIP block, hidden size 4 · width.

    With `recompute` set, backward computes the activation again instead of keeping it: a sixth of what a
    block keeps, for one pass over it.
    """

    recompute = False

    def __init__(self, width: int, activation: str):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        if self.recompute and hidden.requires_grad:
            return checkpoint(self._project, hidden, use_reentrant=False, preserve_rng_state=False)
        return self._project(hidden)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.c_proj(self.activation(hidden))


def run_blocks(blocks: nn.ModuleList, x: Tensor, *args, checkpoint_every: int = 0) -> Tensor:
    """x through the blocks; every `checkpoint_every`-th (0: none) is recomputed in backward, not stored."""
    for i, block in enumerate(blocks):
        if checkpoint_every and i % checkpoint_every == 0 and x.requires_grad and torch.is_grad_enabled():
            x = checkpoint(block, x, *args, use_reentrant=False)
        else:
            x = block(x, *args)
    return x


def init_attention(qkv: nn.Linear, proj: nn.Linear, layers: int) -> None:
    """CLIP's fresh values. Branches of a deep tower start small, or their sum would grow with depth."""
    nn.init.normal_(qkv.weight, std=qkv.in_features**-0.5)
    nn.init.normal_(proj.weight, std=proj.in_features**-0.5 * (2 * layers) ** -0.5)
    nn.init.zeros_(qkv.bias)
    nn.init.zeros_(proj.bias)


def init_mlp(mlp: Mlp, layers: int) -> None:
    """CLIP's fresh values for the other half of a block."""
    width = mlp.c_fc.in_features
    nn.init.normal_(mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
    nn.init.zeros_(mlp.c_fc.bias)
    nn.init.zeros_(mlp.c_proj.bias)
