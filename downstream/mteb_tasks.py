"""Tasks of mteb, the shared benchmark of embeddings: its data, its metrics, with our encoders.

mteb (pip install mteb) fetches the data of a task from the Hugging Face hub. Results are in its own form:
a JSON file for each task; what is there already is not measured again.

    python downstream/mteb_tasks.py --arch TVTSv2_B_16 --tasks HMDB51ZeroShot MSRVTTT2V MSRVTTV2T
    python downstream/mteb_tasks.py --tasks HMDB51ZeroShot --model TVTSv2_B_16 \\
        --model open_clip:ViT-B-16:CLIP/models/ViT-B-16.pt
    python downstream/mteb_tasks.py --list
"""

import argparse
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.embedding.embedder import Embedder
from downstream.embedding.encoder import load_encoder
from downstream.options import (
    add_model_options,
    add_speed_options,
    check_installed,
    chosen_models,
    default_workers,
    join_processes,
)
from downstream.report import draw_table
from utils.commands import CommandParser
from utils.errors import RunError, one_line_interrupts, run_errors, user_errors
from utils.files import check_folder
from utils.processes import leaving_group

EMBEDDED = {"video", "text"}
# Of retrieval, as in papers: a query counts when any of its right answers is that high.
SHOWN = {"hit_rate_at_1": "R@1", "hit_rate_at_5": "R@5", "hit_rate_at_10": "R@10"}


def find_tasks(names: Sequence[str]) -> list[Any]:
    """mteb's tasks of these names. Raises ValueError: an unknown one, or of other things than we embed."""
    import mteb

    try:
        tasks = [mteb.get_task(name) for name in names]
    except KeyError as error:
        said = error.args[0].removeprefix("KeyError: ")
        raise ValueError(f"mteb has no such task: {said} --list lists those of videos") from error
    for task in tasks:
        if not set(task.modalities) <= EMBEDDED:
            *most, last = sorted(task.modalities)
            raise ValueError(
                f"{task.metadata.name} is a task of {', '.join(most)} and {last}; our encoders embed videos "
                "and texts, without sound"
            )
    return tasks


def video_tasks() -> list[str]:
    """The names of mteb's tasks of videos, or of videos and texts, with what they are."""
    import mteb

    with warnings.catch_warnings(action="ignore"):  # which are in beta; those that are run say so themselves
        tasks = mteb.get_tasks(modalities=["video"], exclude_beta=False)  # MSR-VTT's among them
    return [
        f"{task.metadata.name:40} {task.metadata.type}" for task in tasks if set(task.modalities) <= EMBEDDED
    ]


def measure(
    encoder: Any, tasks: Sequence[Any], output: Path, overwrite: bool = False
) -> list[tuple[str, float]]:
    """(what, percent) of each task: its main score, of retrieval R@1, 5 and 10 as well, for each split.

    mteb's results are kept below `output`.

    Raises:
        ValueError: a task is of other things than videos and texts.
        RunError: its data cannot be had, or videos among them cannot be read.
    """
    import mteb

    rows: list[tuple[str, float]] = []
    for task in tasks:
        try:
            found = mteb.evaluate(
                encoder,
                task,
                cache=mteb.ResultCache(output),
                overwrite_strategy="always" if overwrite else "only-missing",
                show_progress_bar=False,
            )
        except OSError as error:  # among them those of the network and of the hub
            raise RunError(f"the data of {task.metadata.name} cannot be had: {error}") from error
        for split, subsets in found.task_results[0].scores.items():
            for scores in subsets:
                parts = [task.metadata.name, split, scores["hf_subset"]]
                name = " ".join(part for part in parts if part not in ("test", "default"))
                rows.append((f"{name} {task.metadata.main_score}", 100 * scores["main_score"]))
                rows += [
                    (f"{name} {word}", 100 * scores[key]) for key, word in SHOWN.items() if key in scores
                ]
    return rows


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("python downstream/mteb_tasks.py", __doc__)
    group = parser.add_argument_group("what to measure")
    group.add_argument("--tasks", nargs="+", metavar="NAME", help="by their names in mteb")
    group.add_argument("--list", action="store_true", help="list mteb's tasks of videos and texts, and end")
    group.add_argument(
        "--output",
        metavar="DIR",
        default="results/mteb",
        help="mteb's result files, by model and task",
    )
    group.add_argument("--overwrite", action="store_true", help="measure again what is there already")
    add_model_options(parser, more="; given several times, the models are measured one after the other")
    add_speed_options(parser)
    return parser


@one_line_interrupts("tasks that are finished are kept; the same command goes on with the others")
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with user_errors():
        if importlib.util.find_spec("mteb") is None:
            raise ValueError("this needs the package mteb: pip install mteb")
        if args.list:
            print("\n".join(video_tasks()))
            return 0
        if not args.tasks:
            raise ValueError("say what to measure: --tasks NAME …; --list lists them")
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("mteb measures in one process: start this command without torchrun")
        tasks = find_tasks(args.tasks)
        output, reader = Path(args.output).expanduser(), args.reader or "pyav"
        check_installed(reader)
        check_folder(output)
        context = join_processes(args.device)
        encoders = [load_encoder(*model, context) for model in chosen_models(args)]
    from downstream.mteb_encoder import MtebEncoder  # imports mteb, which takes seconds

    workers = default_workers() if args.num_workers is None else args.num_workers
    table: dict[str, list[str]] = {}
    with leaving_group(), run_errors(), user_errors():
        for encoder in encoders:
            embedder = Embedder(
                encoder.model,
                encoder.tokenize,
                context,
                args.batch_size or 48,
                workers,
                args.precision or "fp32",
            )
            measured = measure(MtebEncoder(encoder, embedder, reader), tasks, output, args.overwrite)
            for name, score in measured:
                table.setdefault(name, []).append(f"{score:.1f}")
    print(draw_table([encoder.arch for encoder in encoders], table.items()))
    print(f"results: {output / 'results'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
