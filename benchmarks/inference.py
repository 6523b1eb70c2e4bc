"""Whole inference passes on random clips: ours against plain eager PyTorch, in alternating rounds.

python benchmarks/inference.py --arch TVTSv2_B_16 --batch-size 48

A pass embeds a batch of uint8 clips with all their patches. The reference is the same model by
PyTorch's own attention, without torch.compile.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch

from benchmarks.reporting import against_reference
from benchmarks.timing import Runner, add_common_arguments, autocast
from model import VARIANTS, create_model
from model.flops import inference_flops_per_clip


def build_runner(args: argparse.Namespace, name: str, attention: str, compiled: bool) -> Runner:
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = create_model(args.arch, sort_head=False, attention=attention).to(device).eval()
    if compiled:
        model.compile_towers()
    S, frames = model.image_size, args.frames or model.variant.num_frames
    video = torch.randint(0, 256, (args.batch_size, frames, 3, S, S), dtype=torch.uint8).to(device)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        with autocast(device, args.precision):
            return model.encode_video(video)[0]

    return Runner(name, step, args.batch_size, inference_flops_per_clip(model.variant, frames))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="default: %(default)s")
    add_common_arguments(parser, batch_size=48)
    args = parser.parse_args(argv)
    return against_reference("inference", args, build_runner)


if __name__ == "__main__":
    sys.exit(main())
