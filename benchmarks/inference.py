"""Whole inference passes on random clips: ours against plain eager PyTorch, in alternating rounds.

    python benchmarks/inference.py --arch TVTSv2_B_16 --batch-size 48

A pass embeds a batch of uint8 clips with all their patches. The reference is the same model by
PyTorch's own attention, without torch.compile. On a CPU, where that attention is ours, too, it writes
attention and activation out; the defaults there are --arch TVTSv2_B_32 --batch-size 2 --precision fp32
--steps 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch

from benchmarks.reporting import against_reference
from benchmarks.timing import DTYPES, Runner, add_common_arguments, autocast
from model import VARIANTS, create_model
from model.flops import inference_flops_per_clip
from model.fp8 import fp8_copy
from model.kernels import ACTIVATIONS
from model.layers import Mlp
from utils.commands import CommandParser
from utils.environment import bf16_instructions

ON_CPU = {"arch": "TVTSv2_B_32", "batch_size": 2, "precision": "fp32", "steps": 1}


def build_runner(args: argparse.Namespace, name: str, attention: str, compiled: bool) -> Runner:
    device = torch.device(args.device)
    torch.manual_seed(0)
    written_out = device.type == "cpu" and attention == "sdpa"
    model = create_model(args.arch, sort_head=False, attention="math" if written_out else attention)
    model = model.to(device).eval()
    if written_out:
        write_activation_out(model)
    if args.precision == "fp8" and name == "ours":  # what it is compared with stays bf16
        model = fp8_copy(model)
    if compiled:
        model.compile_towers()
    S, frames = model.image_size, args.frames or model.variant.num_frames
    video = torch.randint(0, 256, (args.batch_size, frames, 3, S, S), dtype=torch.uint8).to(device)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        with autocast(device, args.precision):
            return model.encode_video(video)[0]

    return Runner(name, step, args.batch_size, inference_flops_per_clip(model.variant, frames))


def write_activation_out(model: torch.nn.Module) -> None:
    """Let quick GELU be computed as CLIP has it."""
    ACTIVATIONS["written out"] = lambda x: x * torch.sigmoid(1.702 * x)
    for module in model.modules():
        if isinstance(module, Mlp) and module.activation == "quick_gelu":
            module.activation = "written out"


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/inference.py", __doc__)
    parser.add_argument("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add_common_arguments(parser, batch_size=48, precisions=(*DTYPES, "fp8"))
    if torch.device(parser.parse_known_args(argv)[0].device).type == "cpu":
        parser.set_defaults(**ON_CPU)
        found = ", ".join(bf16_instructions() or []) or "none"
        print(f"PyTorch uses {torch.backends.cpu.get_cpu_capability()}; instructions for bf16: {found}")
    args = parser.parse_args(argv)
    return against_reference("inference", args, build_runner)


if __name__ == "__main__":
    sys.exit(main())
