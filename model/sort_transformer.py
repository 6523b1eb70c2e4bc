"""The sort head: given a video's tokens and the texts of its clips, where in time does each text belong?"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels import attend
from .variants import Variant


class Attention(nn.Module):
    """Self-attention, asked for the last `queries` tokens only."""

    def __init__(self, width: int, heads: int, backend: str):
        super().__init__()
        self.heads = heads
        self.backend = backend
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, queries: int) -> Tensor:
        """x [B, L, D] -> [B, queries, D]"""
        D, h = x.shape[-1], self.heads
        weight, bias = self.qkv.weight, self.qkv.bias
        q = rearrange(F.linear(x[:, -queries:], weight[:D], bias[:D]), "b l (h d) -> b l h d", h=h)
        k, v = rearrange(F.linear(x, weight[D:], bias[D:]), "b l (kv h d) -> kv b l h d", kv=2, h=h)
        return self.proj(rearrange(attend(q, k, v, self.backend), "b l h d -> b l (h d)"))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm block that returns the last `queries` tokens of its input's sequence."""

    def __init__(self, width: int, heads: int, backend: str):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, backend)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, queries: int) -> Tensor:
        x = x[:, -queries:] + self.attn(self.norm1(x), queries)
        return x + self.mlp(self.norm2(x))


class SortTransformer(nn.Module):
    """Video tokens and K text embeddings in, for each text the logits of its K places in time out."""

    def __init__(self, variant: Variant, backend: str = "auto"):
        super().__init__()
        width = variant.embed_dim
        self.type_embed = nn.Parameter(torch.zeros(1, 2, width))  # 0: video, 1: text
        self.blocks = nn.ModuleList(
            Block(width, variant.sort_heads, backend) for _ in range(variant.sort_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, variant.sort_clips)

    def forward(self, video_tokens: Tensor, text_embeds: Tensor) -> Tensor:
        """video_tokens [B, L, D], text_embeds [B, K, D] -> logits [B, K, K].

        The texts carry no position, so the head cannot tell their order from where they stand: permuting them
        permutes the rows of the logits and changes nothing else.
        """
        K = text_embeds.shape[1]
        x = torch.cat([video_tokens + self.type_embed[:, :1], text_embeds + self.type_embed[:, 1:]], dim=1)
        for block in self.blocks[:-1]:
            x = block(x, x.shape[1])
        x = self.blocks[-1](x, K)  # only the texts are read from here on
        return self.head(self.norm(x))
