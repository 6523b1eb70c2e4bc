"""Sorting transcripts: how often the sort head puts the texts of a video into their right order.

python downstream/sorting.py --config configs/demo.json --checkpoint results/demo/model_best.pth

The protocol is that of validation during training, on the YT-Temporal validation set of a
pre-training config. The control gives the head the same texts with the tokens of another video:
what it still gets right then, it does not get from watching. The paper has no such table, and
released checkpoints hold no sort head.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import math

import torch
from tqdm import tqdm

from downstream.report import draw_table, write_json
from model import load_checkpoint
from trainer.build import build_model, build_val_loader
from trainer.config import ConfigError, load_config, resolve_path
from trainer.distributed import DistContext, setup
from trainer.errors import user_errors


@torch.inference_mode()
def sorting_accuracy(model: torch.nn.Module, loader: Any, device: torch.device) -> dict[str, float]:
    """Shares, in percent, of transcripts put wholly in order: with their own video, and with another's.

    Args:
        model: a TVTSv2 with its sort head.
        loader: batches of at least two samples with K > 1 texts each.
    """
    right = {"own video": 0, "another video": 0}
    total = 0
    for batch in tqdm(loader, desc="sorting", unit="batch", disable=None):
        if len(batch["index"]) < 2:  # there is no other video to take the tokens of
            continue
        batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        B = batch["video"].shape[0]
        _, tokens = model.encode_video(batch["video"], batch.get("keep_ind"), batch["valid_frames"])
        texts = model.encode_text(batch["text"]).view(-1, B, model.variant.embed_dim).transpose(0, 1)
        places = torch.arange(texts.shape[1], device=device)
        for name, seen in (("own video", tokens), ("another video", tokens.roll(1, dims=0))):
            right[name] += int((model.pred_model(seen, texts).argmax(-1) == places).all(1).sum())
        total += B
    return {name: 100.0 * count / total for name, count in right.items()}


def chance(num_clips: int) -> float:
    """Percent of transcripts in order by chance: one of K! orders."""
    return 100.0 / math.factorial(num_clips)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", required=True, help="a pre-training config of configs/")
    parser.add_argument("-r", "--checkpoint", required=True, help="a training checkpoint, with its sort head")
    parser.add_argument("-d", "--device", help="cuda or cpu (default: a GPU where there is one)")
    parser.add_argument(
        "--output", type=Path, default=Path("sorting.json"), help="results (default: %(default)s)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    with user_errors():
        config = load_config(args.config, args.overrides)
        context = setup(args.device)
        result = evaluate_checkpoint(config, args.checkpoint, context)
    write_json(args.output, result)
    rows = [(name, [f"{value:.1f}"]) for name, value in result["wholly_in_order"].items()]
    rows.append(("chance", [f"{result['chance']:.1f}"]))
    print(draw_table(["wholly in order, %"], rows))
    return 0


def evaluate_checkpoint(config: Mapping[str, Any], checkpoint: str, context: DistContext) -> dict[str, Any]:
    """Sorting accuracy of a checkpoint on the first validation set that is in clips."""
    model = build_model(config, starting_weights=False)
    load_checkpoint(model, resolve_path(checkpoint))
    model.to(context.device).eval()
    entries = [entry for entry in config["data"]["val"] if entry["type"] == "yttemporal"]
    if not entries:
        raise ConfigError("data.val holds no set of type yttemporal, the one with transcripts to sort")
    loader = build_val_loader(entries[0], config, model, context)
    return {
        "checkpoint": str(checkpoint),
        "transcripts": len(loader.dataset),
        "wholly_in_order": sorting_accuracy(model, loader, context.device),
        "chance": chance(model.variant.sort_clips),
    }


if __name__ == "__main__":
    sys.exit(main())
