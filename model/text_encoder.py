"""The text tower's blocks: CLIP's causal transformer. Embeddings and projection belong to TVTSv2 itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels import Projected, add_norm, attend, project_branch
from .layers import Blocks, Mlp, ResidualBlock, init_attention, init_mlp, run_blocks
from .variants import Variant


def cut_to_longest(token_ids: Tensor) -> Tensor:
    """[M, L] -> [M, longest text]: without the columns that lie behind every text's end-of-text token.

    Attention is causal, so what stands behind the end changes no embedding and need not be computed. On a GPU
    this waits for the queue to drain: better give the ids on the CPU.
    """
    if token_ids.is_meta:
        return token_ids  # shapes without contents
    return token_ids[:, : int(token_ids.argmax(dim=-1).max()) + 1]  # end-of-text has the largest id


class CausalAttention(nn.Module):
    """Self-attention to oneself and what came before; parameters named as in nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int, layers: int, backend: str):
        super().__init__()
        self.heads = heads
        self.backend = backend
        qkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        init_attention(qkv, self.out_proj, layers)
        self.in_proj_weight, self.in_proj_bias = qkv.weight, qkv.bias

    def forward(self, x: Tensor) -> Projected:
        """x [M, L, width] -> what `add_norm` adds to the residual stream, of the same shape."""
        M, L, _ = x.shape
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(M, L, 3, self.heads, -1).unbind(2)
        return project_branch(attend(q, k, v, self.backend, causal=True).flatten(2), self.out_proj)


class Block(ResidualBlock):
    """A pre-norm CLIP block."""

    def __init__(self, width: int, heads: int, layers: int, activation: str, backend: str):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalAttention(width, heads, layers, backend)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, activation)
        init_mlp(self.mlp, layers)

    def forward(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """x and the branch still to be added to it, [M, L, width] -> the same for the next block.

        So that a sum and the LayerNorm after it are one kernel, the block begins in the middle of

            x = x + attn(ln_1(x))
            x = x + mlp(ln_2(x))
        """
        x, y = add_norm(x, branch, self.ln_1)
        x, y = add_norm(x, self.attn(y), self.ln_2)
        return x, self.mlp(y)


class TextTransformer(nn.Module):
    """The stack of blocks, [M, L, width] -> [M, L, width]; the lower ones are frozen."""

    def __init__(self, variant: Variant, backend: str = "auto"):
        super().__init__()
        blocks = (
            Block(variant.text_width, variant.text_heads, variant.text_layers, variant.activation, backend)
            for _ in range(variant.text_layers)
        )
        self.resblocks = Blocks(blocks, run_text_blocks)
        frozen = variant.text_layers - variant.trained_text_blocks
        for block in self.resblocks[:frozen]:
            block.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            # Texts differ in number and length from step to step: compiled blocks are to take any at once.
            torch._dynamo.maybe_mark_dynamic(x, [0, 1])
        return self.resblocks(x)


def run_text_blocks(blocks: list[Block], x: Tensor) -> Tensor:
    return run_blocks(blocks, x)
