"""What a model costs, without building it: parameters, FLOPs, memory of activations; or what training takes.

python -m model.summary TVTSv2_B_16
python -m model.summary TVTSv2_B_16 --plan --gpus 32 --samples 10e6
"""

import sys
from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from utils.commands import CommandParser
from utils.errors import one_line_interrupts

from .flops import forward_flops, inference_flops_per_clip, train_flops_per_clip
from .plan import RATES, plan
from .tvtsv2 import TVTSv2, create_model
from .variants import VARIANTS


def count_parameters(model: TVTSv2) -> dict[str, int]:
    """Parameters in all, by part, and by whether they are trained."""
    sizes = {name: (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
    parts = {"video tower": "video_model.", "text tower": "text_", "sort head": "pred_model."}
    return {
        "total": sum(size for size, _ in sizes.values()),
        **{
            part: sum(n for name, (n, _) in sizes.items() if name.startswith(at))
            for part, at in parts.items()
        },
        "trained": sum(size for size, trained in sizes.values() if trained),
        "frozen": sum(size for size, trained in sizes.values() if not trained),
    }


def activation_bytes(model: TVTSv2, num_frames: int, texts: int, text_len: int, bf16: bool = False) -> int:
    """Bytes that a training step's forward keeps for backward, for one clip more in the batch.

    `model` is one built under FakeTensorMode: its tensors have shapes and no contents, nothing is computed.
    """
    one, two = (_saved_bytes(model, batch, num_frames, texts, text_len, bf16) for batch in (1, 2))
    return two - one


def _saved_bytes(model: TVTSv2, batch: int, num_frames: int, texts: int, text_len: int, bf16: bool) -> int:
    v = model.variant
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    saved, hold = {}, []  # held on to, so that no two storages get the same address

    def note(x):
        hold.append(x)
        storage = x.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        return x

    # Indices stand on "meta", from where the model moves them: on the CPU their values would be checked.
    inputs = {
        "video": torch.empty(batch, num_frames, 3, v.image_size, v.image_size),
        "keep_ind": torch.empty(batch, v.kept_patches, dtype=torch.int64, device="meta"),
        "text": torch.empty(texts * batch, text_len, dtype=torch.int64, device="meta"),
    }
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda x: x)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model(inputs)
    return sum(saved.values())


def summarise(
    name: str, num_frames: int | None = None, texts: int = 4, text_len: int = 32, checkpointing: int = 0
) -> str:
    """The summary as text. ValueError for an unknown name or numbers that the model does not take."""
    if texts < 1:
        raise ValueError(f"--texts is {texts}; it must be at least 1")
    with FakeTensorMode():
        model = create_model(name, activation_checkpointing=checkpointing)
        v = model.variant
        frames = v.num_frames if num_frames is None else num_frames
        memory = {
            dtype: activation_bytes(model, frames, texts, text_len, bf16=dtype == "bf16 autocast")
            for dtype in ("float32", "bf16 autocast")
        }
    counts = count_parameters(model)
    forward = forward_flops(v, frames, v.kept_patches, texts, text_len)
    training = train_flops_per_clip(v, frames, v.kept_patches, texts, text_len)
    lines = [
        f"{name}: clips of {frames} frames of {v.image_size}×{v.image_size} pixels",
        "parameters",
        *(f"  {part:<28}{count:>16,}" for part, count in counts.items()),
        f"GFLOPs a clip, training ({v.kept_patches} of {v.num_patches} patches a frame, "
        f"{texts} texts of {text_len} tokens)",
        *(f"  {part:<28}{flops / 1e9:>16,.1f}" for part, flops in forward.items()),
        f"  {'forward':<28}{sum(forward.values()) / 1e9:>16,.1f}",
        f"  {'forward and backward':<28}{training / 1e9:>16,.1f}",
        f"GFLOPs a clip, inference ({v.num_patches} patches a frame, no text)",
        f"  {'forward':<28}{inference_flops_per_clip(v, frames) / 1e9:>16,.1f}",
        "MiB of activations a clip, kept in training for backward",
        *(f"  {dtype:<28}{size / 2**20:>16,.1f}" for dtype, size in memory.items()),
    ]
    return "\n".join(lines)


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python -m model.summary", __doc__)
    parser.add_argument("name", choices=VARIANTS, help="which model")
    parser.add_argument("--frames", type=int, help="frames a clip (default: the variant's)")
    parser.add_argument("--texts", type=int, default=4, help="texts a clip in training (1 for WebVid)")
    parser.add_argument("--text-len", type=int, default=32, help="tokens of the longest text of a batch")
    parser.add_argument("--checkpointing", type=int, default=0, help="recompute every k-th block (0: none)")
    plans = parser.add_argument_group("a pre-training")
    plans.add_argument("--plan", action="store_true", help="hours, memory, cores and bandwidth instead")
    plans.add_argument("--gpus", type=int, default=1, help="in all")
    plans.add_argument("--samples", type=float, help="clips of an epoch, such as 10e6")
    plans.add_argument("--epochs", type=float, default=1, help="how often each is seen")
    plans.add_argument("--card", choices=RATES, default="H200", help="whose measured rate to take")
    plans.add_argument("--rate", type=float, help="clips a second that you measured on one GPU")
    plans.add_argument("--efficiency", type=float, help="of all GPUs, as a share of so many times one")
    args = parser.parse_args(argv)
    if args.plan and args.samples is None:
        parser.error("--plan needs --samples, the clips of an epoch")
    try:
        if args.plan:
            numbers = (args.gpus, args.samples, args.epochs, args.card, args.rate, args.efficiency)
            print(plan(args.name, *numbers))
        else:
            print(summarise(args.name, args.frames, args.texts, args.text_len, args.checkpointing))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
