"""Sorting transcripts: how often the sort head puts the texts of a video into their right order.

The protocol is that of validation during training, on the YT-Temporal validation set of a pre-training
config. The control gives the head the same texts with the tokens of another video: what it still gets right
then, it does not get from watching. The paper has no such table, and released checkpoints hold no sort head.

    python downstream/sorting.py --config configs/demo.json --checkpoint results/demo/model_best.pth
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from einops import rearrange
from tqdm import tqdm

from data_loader.build import build_val_loader
from data_loader.failures import Failure
from downstream.embedding.embedder import exact_float32
from downstream.options import join_processes
from downstream.report import draw_table, failed_files, write_json
from model import TVTSv2, load_checkpoint
from model.build import build_model
from model.metric import all_alike, check_finite, in_order
from utils.commands import CommandParser, add_overrides
from utils.config import ConfigError, load_config, resolve_path
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import check_folder
from utils.processes import DistContext, leaving_group
from utils.schema import PretrainingConfig
from utils.text import counted


@torch.inference_mode()
def sorting_accuracy(
    model: TVTSv2, loader: Iterable[Mapping[str, Any]], context: DistContext
) -> tuple[dict[str, float], int, list[Failure]]:
    """Transcripts put wholly in order, with their own video and with another's, on all processes together.

    Args:
        model: with its sort head.
        loader: this process's batches, of samples with K > 1 texts each.

    Returns:
        shares in percent; how many transcripts they are of, all but those alone in their batch; the videos
        that could not be read.

    Raises:
        ValueError: there is no such transcript.
        FloatingPointError: the sort head gives NaN or infinity; names the first such transcript.
    """
    assert model.pred_model is not None
    right = {"own video": 0, "another video": 0}
    total, missing, answers = 0, [], []
    for batch in tqdm(loader, desc="sorting", unit="batch", disable=None if context.is_main else True):
        missing += batch["missing"]
        B = len(batch["index"])
        if B < 2:  # there is no other video to take the tokens of
            continue
        _, tokens = model.encode_video(batch["video"], batch.get("keep_ind"), batch["valid_frames"])
        texts = rearrange(model.encode_text(batch["text"]), "(k b) d -> b k d", b=B)
        for name, seen in (("own video", tokens), ("another video", tokens.roll(1, dims=0))):
            order_logits = model.pred_model(seen, texts)
            check_finite(order_logits, batch["id"], "order")
            right[name] += int(in_order(order_logits).sum())
            answers.append(order_logits.flatten(1).cpu())
        total += B
    *counts, total = context.sum([*right.values(), total])
    missing = [failure for part in context.gather_objects(missing) for failure in part]
    if not total:
        raise ValueError("no two transcripts with readable videos come in one batch; see data.batch_size")
    if context.is_main and answers and all_alike(torch.cat(answers)):
        print("warning: the sort head answers the same whatever it is shown", file=sys.stderr)
    shares = {name: 100.0 * count / total for name, count in zip(right, counts, strict=True)}
    return shares, total, missing


def chance(num_clips: int) -> float:
    """Percent of transcripts in order by chance: one of K! orders."""
    return 100.0 / math.factorial(num_clips)


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python downstream/sorting.py", __doc__)
    parser.add_argument("-c", "--config", required=True, help="a pre-training config of configs/")
    parser.add_argument("-r", "--checkpoint", required=True, help="a training checkpoint, with its sort head")
    parser.add_argument("-d", "--device", help="cuda or cpu (default: a GPU where there is one)")
    parser.add_argument("--output", type=Path, default=Path("sorting.json"), help="results")
    add_overrides(parser, "override a config key")
    args = parser.parse_args(argv)
    with run_errors(), user_errors(), leaving_group():
        config = load_config(PretrainingConfig, args.config, args.overrides)
        context = join_processes(args.device)
        if context.is_main:
            check_folder(args.output.parent)
        result = evaluate_checkpoint(config, args.checkpoint, context)
    if context.is_main:
        if result["failed_files"]:
            listed = "\n".join(f"  {file['path']}: {file['reason']}" for file in result["failed_files"])
            number = counted(len(result["failed_files"]), "videos")
            print(f"warning: left out {number} that cannot be read:\n{listed}", file=sys.stderr)
        rows = [(name, [f"{value:.1f}"]) for name, value in result["wholly_in_order"].items()]
        rows.append(("chance", [f"{result['chance']:.1f}"]))
        print(draw_table(["wholly in order, %"], rows))
        with run_errors():
            write_json(args.output, result)
    return 0


def evaluate_checkpoint(config: PretrainingConfig, checkpoint: str, context: DistContext) -> dict[str, Any]:
    """Sorting accuracy of a checkpoint on the first validation set that has transcripts.

    Raises:
        ConfigError: there is no such set, or the checkpoint has no sort head.
    """
    model = build_model(config.arch, starting_weights=False)
    if load_checkpoint(model, resolve_path(checkpoint)).fresh:  # it would sort at random
        raise ConfigError(
            f"{checkpoint} holds no sort head, as released files do: take a training checkpoint"
        )
    model.to(context.device).eval()
    narrated = ("yttemporal", "narrated")
    entries = [e for e in config.data.val if e.type in narrated or (e.num_clips or 1) > 1]
    if not entries:
        raise ConfigError(
            "data.val holds no set of type yttemporal or narrated, or csv with num_clips: those with several "
            "texts a sample to sort"
        )
    loader = build_val_loader(entries[0], config, model, context)
    with exact_float32():
        shares, transcripts, missing = sorting_accuracy(model, loader, context)
    return {
        "checkpoint": str(checkpoint),
        "transcripts": transcripts,
        "wholly_in_order": shares,
        "chance": chance(model.variant.sort_clips),
        "failed_files": failed_files(missing),
    }


if __name__ == "__main__":
    sys.exit(main())
