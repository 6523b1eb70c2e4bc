"""Attention divided into space and time. Tokens lie as [class, frame 0 patches, frame 1 patches, ...]."""

from torch import Tensor, nn

from .kernels import Projected, Quantized, divided_attention, project_branch


class DividedAttention(nn.Module):
    """Self-attention in which a patch sees the class token and the other members of its group.

    over="space": a group is a frame, its members the n patches kept of it.
    over="time":  a group is a patch position, its members that patch in each of the T frames.
    The class token sees every token.
    """

    factors: Tensor | None

    def __init__(self, width: int, heads: int, over: str, backend: str = "auto"):
        super().__init__()
        self.heads = heads
        self.over = over
        self.backend = backend
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        # In fp8, what the output is multiplied by to be e4m3, [width]: without having seen it.
        self.register_buffer("factors", None)

    def forward(self, x: Tensor | Quantized, num_frames: int) -> Projected:
        """x [B, 1 + T·n, width] -> what `add_norm` adds to the residual stream, of the same shape.

        num_frames is T.
        """
        y = divided_attention(x, self.qkv, num_frames, self.heads, self.over, self.backend, self.factors)
        return project_branch(y, self.proj)

    def zero_init(self) -> None:
        """The official start of the temporal attention: whatever its input, its output is zero.

        The values are zero because qkv is, and q and k get no gradient while v is zero. Training leaves this
        saddle through v alone.
        """
        for parameter in (self.qkv.weight, self.qkv.bias, self.proj.bias):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.proj.weight)
