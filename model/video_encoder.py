"""The video tower: a CLIP ViT with attention divided into space and time, and tube masking."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import DividedAttention
from .checks import check_keep_ind, check_valid_frames, check_video
from .kernels import add_norm
from .layers import Blocks, Mlp, ResidualBlock, init_attention, init_mlp, run_blocks
from .precision import as_residual
from .variants import Variant

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class Block(ResidualBlock):
    """Attention over time, attention over space, MLP, each after a LayerNorm."""

    fp8 = False  # the linear layers are of fp8

    def __init__(self, width: int, heads: int, activation: str, backend: str):
        super().__init__()
        self.ln_3 = nn.LayerNorm(width)
        self.timeattn = DividedAttention(width, heads, "time", backend)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = DividedAttention(width, heads, "space", backend)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, activation)

    def forward(self, x: Tensor, branch: Tensor | None, num_frames: int) -> tuple[Tensor, Tensor]:
        """x and the branch still to be added to it, [B, 1 + T·n, width] -> the same for the next block.

        So that a sum and the LayerNorm after it are one kernel, the block begins in the middle of

            time = timeattn(ln_3(x))
            x = x + attn(ln_1(x + time))
            x = x + mlp(ln_2(x))
        """
        x, y = add_norm(x, branch, self.ln_3, self.fp8)
        time = self.timeattn(y, num_frames)
        _, y = add_norm(x, time, self.ln_1, self.fp8, keep_sum=False)  # attn alone sees the sum with time
        x, y = add_norm(x, self.attn(y, num_frames), self.ln_2, self.fp8)
        return x, self.mlp(y)


def run_video_blocks(blocks: list[Block], x: Tensor, num_frames: int) -> Tensor:
    return run_blocks(blocks, x, num_frames)


class Transformer(nn.Module):
    """Holds the blocks under the name that they have in CLIP's state_dict, `transformer.resblocks`."""

    def __init__(self, blocks: Iterable[Block]):
        super().__init__()
        self.resblocks = Blocks(blocks, run_video_blocks)


class VideoTransformer(nn.Module):
    """Clips to one embedding each, and to the tokens that the sort head reads.

    variant.sort_tokens says which tokens: "all_normed" is the class token and all patches after `ln_post` and
    `proj`; "patches_raw" is the patches alone, after `proj` without `ln_post` (the official H/14).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, variant: Variant, backend: str = "auto"):
        super().__init__()
        self.variant = variant
        width, patch = variant.video_width, variant.patch_size
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + variant.num_patches, width))
        self.temporal_embedding = nn.Parameter(torch.empty(variant.num_frames, width))
        self.ln_pre = nn.LayerNorm(width)
        blocks = [
            Block(width, variant.video_heads, variant.activation, backend)
            for _ in range(variant.video_layers)
        ]
        self.transformer = Transformer(blocks)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, variant.embed_dim))
        # Normalisation of uint8 pixels; not part of the official state_dict.
        self.register_buffer("pixel_mean", torch.empty(3, 1), persistent=False)
        self.register_buffer("pixel_std", torch.empty(3, 1), persistent=False)
        self.set_pixel_statistics()
        self._init_weights(blocks)

    def set_pixel_statistics(self) -> None:
        """Fill the two buffers, which no weights file holds."""
        self.pixel_mean.copy_(255 * torch.tensor(IMAGE_MEAN).view(3, 1))
        self.pixel_std.copy_(255 * torch.tensor(IMAGE_STD).view(3, 1))

    def _init_weights(self, blocks: list[Block]) -> None:
        """Fresh values: CLIP's, and the variant's own for what CLIP does not have (see Variant)."""
        std = self.variant.video_width**-0.5
        for parameter in (self.class_embedding, self.proj):
            nn.init.normal_(parameter, std=std)
        nn.init.normal_(self.positional_embedding, std=self.variant.positional_embedding_std or std)
        nn.init.normal_(self.temporal_embedding, std=self.variant.temporal_embedding_std or std)
        for block in blocks:
            init_attention(block.attn.qkv, block.attn.proj, self.variant.video_layers)
            init_attention(block.timeattn.qkv, block.timeattn.proj, self.variant.video_layers)
            init_mlp(block.mlp, self.variant.video_layers)
            if self.variant.temporal_attention_init == "zero":
                block.timeattn.zero_init()

    def forward(
        self, video: Tensor, keep_ind: Tensor | None = None, valid_frames: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Arguments and results as in TVTSv2.encode_video."""
        if video.ndim == 4:
            video = video[:, None]  # an image is a clip of one frame
        check_video(video, self.variant)
        B, T = video.shape[:2]
        if keep_ind is not None:
            check_keep_ind(keep_ind, B, self.variant.num_patches)
            keep_ind = keep_ind.to(video.device)
        if valid_frames is not None:
            check_valid_frames(valid_frames, B)
            valid_frames = valid_frames.to(video.device)

        x = self.embed(video, keep_ind, valid_frames)
        return self.read_out(self.transformer.resblocks(x, T))

    def embed(self, video: Tensor, keep_ind: Tensor | None, valid_frames: Tensor | None) -> Tensor:
        """video [B, T, 3, S, S] -> tokens with their positions, [B, 1 + T·n, width]."""
        B, T = video.shape[:2]
        patches = self.cut_patches(video, keep_ind)  # [B, T, n, 3, patch²]
        if video.dtype == torch.uint8:
            patches = (patches - self.pixel_mean) / self.pixel_std
        if valid_frames is not None:
            padding = torch.arange(T, device=video.device) >= valid_frames[:, None]  # [B, T]
            patches = patches.masked_fill(padding[:, :, None, None, None], 0)
        x = F.linear(
            patches.flatten(3).to(self.conv1.weight.dtype), self.conv1.weight.flatten(1)
        )  # [B, T, n, width]

        x = x + self.patch_positions(keep_ind) + self.temporal_embedding[:T, None]
        class_token = (self.class_embedding + self.positional_embedding[0]).expand(B, 1, -1)
        x = torch.cat([class_token.to(x.dtype), rearrange(x, "b t n c -> b (t n) c")], dim=1)

        return as_residual(self.ln_pre(x))

    def read_out(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens after the last block -> video embeddings [B, D], and the tokens for the sort head."""
        if self.variant.sort_tokens == "all_normed":
            tokens = self.ln_post(x) @ self.proj
            # A copy: in a graph that PyTorch 2.11 takes from its cache on disk, an output that is a view of
            # another has a garbage shape.
            return tokens[:, 0].clone(), tokens
        return self.ln_post(x[:, 0]) @ self.proj, x[:, 1:] @ self.proj

    def cut_patches(self, video: Tensor, keep_ind: Tensor | None) -> Tensor:
        """video [B, T, 3, H, W] -> patches [B, T, n, 3, patch²], those of keep_ind [B, n] in order, or all.

        Masked patches are dropped here, as pixels, so that nothing is computed for them.
        """
        p, g = self.variant.patch_size, self.variant.image_size // self.variant.patch_size
        B, T = video.shape[:2]
        grid = rearrange(video, "b t c (row p) (col q) -> b t row col c p q", p=p, q=p)  # still a view
        if keep_ind is None:
            return rearrange(grid, "b t row col c p q -> b t (row col) c (p q)")
        keep = keep_ind[:, None]  # [B, 1, n]
        sample = torch.arange(B, device=video.device)[:, None, None]
        frame = torch.arange(T, device=video.device)[:, None]
        return rearrange(grid[sample, frame, keep // g, keep % g], "b t n c p q -> b t n c (p q)")

    def patch_positions(self, keep_ind: Tensor | None) -> Tensor:
        """Position embeddings of the patches, broadcastable to [B, T, n, width]."""
        positions = self.positional_embedding[1:]
        if keep_ind is None:
            return positions
        return F.embedding(keep_ind, positions)[:, None]

    def compile_regions(self, size: int, **options) -> None:
        """torch.compile in place: what lies before the blocks, `size` blocks at a time, what lies after."""
        self.transformer.resblocks.compile_regions(size, **options)
        for method in ("embed", "read_out"):
            setattr(self, method, torch.compile(getattr(self, method), **options))
