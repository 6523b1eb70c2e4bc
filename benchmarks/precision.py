"""How far video embeddings in bf16 and in fp8 are from those in float32: cosines, the lowest of the clips.

    python benchmarks/precision.py --arch TVTSv2_B_16 --checkpoint TVTSv2_B_16.pth --videos videos/*.mp4
    python benchmarks/precision.py --arch TVTSv2_B_16

Without a checkpoint weights are random, as they are and with the outlier channels that CLIP's have; without
videos clips are blobs of random colours. "less the mean" compares what tells the clips apart: embeddings
from which the clips' mean, in float32, is taken.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import common
from benchmarks.timing import autocast, full_float32
from data_loader.transforms import feature_transform
from data_loader.video import VideoReadError, read_clip
from model import VARIANTS, TVTSv2, create_model, load_checkpoint
from model.fp8 import fp8_copy
from model.kernels import check_fp8
from model.video_encoder import Block
from utils.commands import CommandParser
from utils.errors import user_errors

CHANNELS, FACTOR = 4, 30


def which_channels(model: TVTSv2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(model.variant.video_width, generator=generator)[:CHANNELS]


@torch.no_grad()
def outliers_in_the_sum(model: TVTSv2) -> None:
    """Make a few channels of the residual sum 30 times larger, by ln_pre."""
    which = which_channels(model)
    model.video_model.ln_pre.weight[which] *= FACTOR
    model.video_model.ln_pre.bias[which] += FACTOR


@torch.no_grad()
def outliers_behind_norms(model: TVTSv2, made_up_for: bool = True) -> None:
    """Make a few channels behind each LayerNorm 30 times larger, by its weight.

    made_up_for: the layer after it takes them with small weights, as one in a trained model has learned to.
    """
    which = which_channels(model)
    for block in model.video_model.transformer.resblocks:
        assert isinstance(block, Block)
        for norm, layer in (
            (block.ln_3, block.timeattn.qkv),
            (block.ln_1, block.attn.qkv),
            (block.ln_2, block.mlp.c_fc),
        ):
            norm.weight[which] *= FACTOR
            if made_up_for:
                layer.weight[:, which] /= FACTOR


def outliers_in_both(model: TVTSv2) -> None:
    outliers_in_the_sum(model)
    outliers_behind_norms(model)


WEIGHTS: dict[str, Callable[[TVTSv2], None]] = {
    "random weights": lambda _: None,
    "outliers in the sum": outliers_in_the_sum,
    "outliers behind LayerNorms, made up for": outliers_behind_norms,
    "both": outliers_in_both,
    "outliers behind LayerNorms, not made up for": lambda model: outliers_behind_norms(model, False),
}


def blobs(clips: int, frames: int, size: int) -> Tensor:
    """Clips uint8 [B, T, 3, S, S] of coloured blobs, as random pixels all look the same to a model."""
    small = torch.rand(clips * frames, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = F.interpolate(small, size=(size, size), mode="bilinear")
    return (255 * pixels).to(torch.uint8).unflatten(0, (clips, frames))


def read_videos(paths: Sequence[str], frames: int, size: int) -> Tensor:
    """As feature extraction reads them: uint8 [B, T, 3, S, S]. ValueError: one is damaged, or too short."""
    clips, transform = [], feature_transform(size)
    for path in paths:
        try:
            clip, _, count = read_clip(path, frames)
        except VideoReadError as error:
            raise ValueError(str(error)) from error
        if len(clip) < frames:
            raise ValueError(
                f"{path} has {count} frames, fewer than {frames}: leave it out, or give --frames"
            )
        clips.append(transform(clip))
    return torch.stack(clips)


@torch.inference_mode()
def compare(name: str, model: TVTSv2, video: Tensor, batch_size: int) -> list[dict[str, Any]]:
    """A row for bf16, and one for fp8."""

    def embed(model: TVTSv2, precision: str) -> Tensor:
        with full_float32(), autocast(model.device, precision):
            parts = [model.encode_video(part.to(model.device))[0] for part in video.split(batch_size)]
        return torch.cat(parts).double()

    want = embed(model, "fp32")
    mean = want.mean(0)
    rows = []
    for precision, other in (("bf16", model), ("fp8", fp8_copy(model))):
        got = embed(other, precision)
        row = {"name": f"{name}, {precision}", "cosine": lowest_cosine(got, want)}
        rows.append({**row, "less the mean": lowest_cosine(got - mean, want - mean)})
    return rows


def lowest_cosine(a: Tensor, b: Tensor) -> str:
    return f"{F.cosine_similarity(a, b, dim=-1).min().item():.5f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/precision.py", __doc__)
    add = parser.add_argument
    add("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add("--checkpoint", help="its weights (default: random ones, of every kind)")
    add("--videos", nargs="+", metavar="FILE", help="videos, two or more (default: clips of blobs)")
    add("--clips", type=int, default=8, help="how many clips of blobs")
    add("--frames", type=int, help="frames a clip (default: the variant's)")
    add("--batch-size", type=int, default=8, help="clips at a time")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    add("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    with user_errors():
        rows = measure(args)
    common.report(f"precision, {args.arch}", {"lowest cosine to float32": rows}, args.json)
    return 0


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(args.device)
    check_fp8(device)
    variant = VARIANTS[args.arch]
    frames, size = args.frames or variant.num_frames, variant.image_size
    clips = read_videos(args.videos, frames, size) if args.videos else blobs(args.clips, frames, size)
    if len(clips) < 2:
        raise ValueError("one clip alone does not differ from the clips' mean: give two or more")
    rows = []
    for name, change in WEIGHTS.items():
        torch.manual_seed(0)
        model = create_model(args.arch, sort_head=False, temporal_attention_init="random").eval()
        if args.checkpoint:
            load_checkpoint(model, args.checkpoint)
            return compare(Path(args.checkpoint).name, model.to(device), clips, args.batch_size)
        change(model)
        rows += compare(name, model.to(device), clips, args.batch_size)
    return rows


if __name__ == "__main__":
    sys.exit(main())
