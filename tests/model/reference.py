"""Plain attention, token by token: what the fast one has to equal."""

import torch


def allowed_pairs(num_frames: int, kept: int, over: str) -> torch.Tensor:
    """[1 + T·n, 1 + T·n], true where a query (row) may see a key (column)."""
    tokens = [None] + [(t, i) for t in range(num_frames) for i in range(kept)]
    axis = 0 if over == "space" else 1  # in space the frame is shared, in time the position

    def sees(query, key):
        return query is None or key is None or query[axis] == key[axis]

    return torch.tensor([[sees(query, key) for key in tokens] for query in tokens])


def plain_attention(q, k, v, allowed=None):
    """q, k, v [B, L, heads, size] -> [B, L, heads, size], softmax written out."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def plain_divided_attention(module, x, num_frames):
    """What DividedAttention computes, from one masked attention over all tokens."""
    B, L, D = x.shape
    q, k, v = module.qkv(x).view(B, L, 3, module.heads, -1).unbind(2)
    allowed = allowed_pairs(num_frames, (L - 1) // num_frames, module.over)
    return module.proj(plain_attention(q, k, v, allowed).reshape(B, L, D))
