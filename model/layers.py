"""What both towers share: the MLP, running a stack of blocks, and CLIP's initial weights."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .kernels import Quantized, TrainedFp8Linear, activate, multiply_mlp, project_hidden


class Mlp(nn.Module):
    """The feed-forward half of a CLIP block, hidden size 4 · width.

    With `recompute` set, backward computes the activation again instead of keeping it: a sixth of what a
    block keeps, for one pass over it.
    """

    recompute = False
    fp8 = False  # the layers are of fp8

    def __init__(self, width: int, activation: str):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor | Quantized) -> Tensor:
        """[B, L, width] -> [B, L, width]"""
        if isinstance(self.c_fc, TrainedFp8Linear):
            return multiply_mlp(x, self.c_fc, self.c_proj, self.activation)
        hidden, bias = project_hidden(x, self.c_fc)
        if self.recompute and hidden.requires_grad:
            return checkpoint(self.second_half, hidden, bias, use_reentrant=False, preserve_rng_state=False)
        return self.second_half(hidden, bias)

    def second_half(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        return self.c_proj(activate(hidden, bias, self.activation, self.fp8))


class ResidualBlock(nn.Module):
    """A block of a tower, [B, L, width] -> [B, L, width].

    It takes x and the branch that is still to be added to it (None before the first block), and returns the
    same for the next block, whose first `add_norm` makes the sum. With `recompute` set, it is not stored for
    backward, but computed again.
    """

    recompute = False


class Blocks(nn.ModuleList):
    """The blocks of a tower, [B, L, width] -> [B, L, width].

    run is `run_blocks`, or a function around it that the tower has for itself: torch.compile keeps what it
    compiles, and remembers which sizes vary, by function.
    """

    def __init__(self, blocks: Iterable[ResidualBlock], run: Callable[..., Tensor] | None = None):
        blocks = list(blocks)
        super().__init__(blocks)
        self.run, self.regions = run or run_blocks, [blocks]

    def __iter__(self) -> Iterator[ResidualBlock]:
        return chain.from_iterable(self.regions)

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


def run_blocks(blocks: Sequence[ResidualBlock], x: Tensor, *args) -> Tensor:
    """x through the blocks, and the last branch added."""
    branch: Tensor | None = None
    for block in blocks:
        if block.recompute and x.requires_grad and torch.is_grad_enabled():
            x, branch = checkpoint(block, x, branch, *args, use_reentrant=False)
        else:
            x, branch = block(x, branch, *args)
    return x if branch is None else x + branch


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
