"""The text tower's blocks: CLIP's causal transformer. Embeddings and projection belong to TVTSv2 itself."""

from torch import Tensor, nn
from torch.nn import functional as F

from model.layers import Mlp, attend, init_attention, init_mlp, run_blocks
from model.variants import Variant


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

    def forward(self, x: Tensor) -> Tensor:
        M, L, _ = x.shape
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(M, L, 3, self.heads, -1).unbind(2)
        return self.out_proj(attend(q, k, v, self.backend, causal=True).flatten(2))


class Block(nn.Module):
    """A pre-norm CLIP block."""

    def __init__(self, width: int, heads: int, layers: int, activation: str, backend: str):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalAttention(width, heads, layers, backend)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, activation)
        init_mlp(self.mlp, layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """The stack of blocks, [M, L, width] -> [M, L, width]."""

    def __init__(self, variant: Variant, backend: str = "auto", checkpoint_every: int = 0):
        super().__init__()
        self.checkpoint_every = checkpoint_every
        self.resblocks = nn.ModuleList(
            Block(variant.text_width, variant.text_heads, variant.text_layers, variant.activation, backend)
            for _ in range(variant.text_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        return run_blocks(self.resblocks, x, checkpoint_every=self.checkpoint_every)
