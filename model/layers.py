"""What both towers share: attention behind one function, the MLP, and running a stack of blocks."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from model.precision import dtype_of_products

try:
    from model import triton_activation, triton_norm
except ImportError:  # Triton comes with PyTorch for NVIDIA's GPUs, not everywhere else
    triton_activation = triton_norm = None

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
            return triton_norm.add_layer_norm(x, None, None, self.weight, self.bias, self.eps)[1]
        return super().forward(x)

    def after_sum(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + branch, or x if there is none, and its LayerNorm."""
        if branch is None:
            return x, self(x)
        if triton_norm is not None and triton_norm.supports(x) and branch.dtype == x.dtype:
            return triton_norm.add_layer_norm(x, branch, None, self.weight, self.bias, self.eps)[:2]
        x = x + branch
        return x, super().forward(x)

    def after_projection(self, x: Tensor, proj: nn.Linear, y: Tensor) -> tuple[Tensor, Tensor]:
        """x + proj(y), and its LayerNorm."""
        if triton_norm is None or not triton_norm.supports(x) or dtype_of_products(y) != x.dtype:
            return self.after_sum(x, proj(y))
        branch = F.linear(y, proj.weight, proj.bias.detach())
        return triton_norm.add_layer_norm(x, branch, proj.bias, self.weight, self.bias, self.eps)[:2]


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's x · sigmoid(1.702 x), written so that backward needs one stored tensor, not three."""
    return F.silu(1.702 * x) / 1.702


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}  # model/triton_activation.py knows them, too


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
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        bias = self.c_fc.bias
        with_kernel = triton_activation is not None and triton_activation.supports(x)
        hidden = F.linear(x, self.c_fc.weight, bias.detach() if with_kernel else bias)
        project = self._project_with_kernel if with_kernel else self._project
        if self.recompute and hidden.requires_grad:
            return checkpoint(project, hidden, use_reentrant=False, preserve_rng_state=False)
        return project(hidden)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.c_proj(ACTIVATIONS[self.activation](hidden))

    def _project_with_kernel(self, hidden: Tensor) -> Tensor:
        return self.c_proj(triton_activation.activate(hidden, self.c_fc.bias, self.activation))


class Blocks(nn.ModuleList):
    """The blocks of a tower, [B, L, width] -> [B, L, width].

    A block takes x and a branch that is still to be added to it, or None, and returns the same for the next,
    whose first LayerNorm makes the sum. A block whose `recompute` is set is not stored for backward, but
    computed again.

    run is `run_blocks`, or a function around it that the tower has for itself: torch.compile keeps what it
    compiles, and remembers which sizes vary, by function.
    """

    def __init__(self, blocks: Iterable[nn.Module], run: Callable[..., Tensor] | None = None):
        super().__init__(blocks)
        self.run, self.regions = run or run_blocks, [list(self)]

    def forward(self, x: Tensor, *args) -> Tensor:
        for region in self.regions:
            x = self.run(region, x, *args)
        return x

    def compile_regions(self, size: int, **options) -> None:
        """torch.compile `size` blocks at a time, which all share what is compiled, in place.

        With a size of 1, the hooks of a block stay out of what is compiled.
        """
        if size == 1:
            for block in self:
                block.forward = torch.compile(block.forward, **options)
        else:
            self.regions = [list(self)[start : start + size] for start in range(0, len(self), size)]
            self.run = torch.compile(self.run, **options)


def run_blocks(blocks: list[nn.Module], x: Tensor, *args) -> Tensor:
    """x through blocks as `Blocks` describes them, and the last branch added."""
    branch = None
    for block in blocks:
        if block.recompute and x.requires_grad and torch.is_grad_enabled():
            x, branch = checkpoint(block, x, branch, *args, use_reentrant=False)
        else:
            x, branch = block(x, branch, *args)
    return x + branch


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
