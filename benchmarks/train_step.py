"""Whole training steps on random data: ours against plain eager PyTorch, in alternating rounds.

    python benchmarks/train_step.py --arch TVTSv2_B_16 --batch-size 64

A step is a YT-Temporal batch: forward with the tube mask and four texts a clip, both losses, backward,
AdamW. The reference is the same model by PyTorch's own attention, without torch.compile.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch

from benchmarks.reporting import against_reference
from benchmarks.timing import DTYPES, Runner, add_common_arguments, add_recomputation, autocast
from model import VARIANTS, create_model, is_new_parameter
from model.flops import train_flops_per_clip
from model.fp8 import train_in_fp8
from model.loss import NormSoftmaxLoss, sort_loss
from model.metric import sim_matrix
from model.variants import get_variant
from trainer.optim import build_optimizer, parameter_groups
from utils.commands import CommandParser
from utils.errors import user_errors
from utils.schema import OptimizerConfig

OPTIMIZER = OptimizerConfig()


def random_batch(variant, batch_size: int, frames: int, texts: int, text_len: int, device) -> dict:
    """A batch as the loader gives it, on the device: uint8 clips, kept patches, token ids."""
    g = torch.Generator().manual_seed(0)
    S = variant.image_size
    video = torch.randint(0, 256, (batch_size, frames, 3, S, S), dtype=torch.uint8, generator=g)
    order = torch.rand(batch_size, variant.num_patches, generator=g).argsort(dim=1)
    text = torch.randint(1, variant.vocab_size - 2, (texts * batch_size, text_len), generator=g)
    text[:, -1] = variant.vocab_size - 1  # end-of-text
    batch = {"video": video, "keep_ind": order[:, : variant.kept_patches], "text": text}
    return {key: value.to(device) for key, value in batch.items()}


def build_runner(args: argparse.Namespace, name: str, attention: str, compiled: bool) -> Runner:
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = create_model(
        args.arch,
        attention=attention,
        activation_checkpointing=args.activation_checkpointing,
        mask_ratio=args.mask_ratio,
    ).to(device)
    if args.precision == "fp8" and name == "ours":  # what it is compared with stays bf16
        train_in_fp8(model)
    if compiled:
        model.compile_towers()
    model.train()
    optimizer = build_optimizer(parameter_groups(model, is_new_parameter, OPTIMIZER), OPTIMIZER)
    v = model.variant
    frames = args.frames or v.num_frames
    batch = random_batch(v, args.batch_size, frames, args.texts, args.text_tokens, device)
    step = training_step(model, optimizer, batch, device, args.precision)
    flops = train_flops_per_clip(v, frames, v.kept_patches, args.texts, args.text_tokens)
    return Runner(name, step, args.batch_size, flops)


def training_step(model, optimizer, batch, device, precision: str) -> Callable[[], torch.Tensor]:
    contrastive = NormSoftmaxLoss()
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step() -> torch.Tensor:
        with autocast(device, precision):
            out = model(batch)
        loss = contrastive(sim_matrix(out.video_embeds.float(), out.text_embeds.float()))
        if out.order_logits is not None:
            loss = loss + sort_loss(out.order_logits)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/train_step.py", __doc__)
    parser.add_argument("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add_common_arguments(parser, batch_size=64, precisions=(*DTYPES, "fp8"))
    parser.add_argument(
        "--mask-ratio", type=float, metavar="SHARE", help="patches left out (default: as the variant has it)"
    )
    parser.add_argument("--texts", type=int, default=4, help="texts a clip; 1 as in WebVid")
    parser.add_argument(
        "--text-tokens",
        type=int,
        default=77,
        help="tokens of the batch's longest text, 77 at most",
    )
    add_recomputation(parser)
    args = parser.parse_args(argv)
    variant = get_variant(args.arch)
    if args.mask_ratio is None:
        args.mask_ratio = variant.mask_ratio
    with user_errors():
        variant.replace(mask_ratio=args.mask_ratio)
    return against_reference("training step", args, build_runner)


if __name__ == "__main__":
    sys.exit(main())
