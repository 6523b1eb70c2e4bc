"""Features of your own videos, or texts: files, folders, patterns or lists in, one vector each out.

    python downstream/feature_extraction.py my_videos/ --arch TVTSv2_B_16 --output features.safetensors

As a function: `from downstream.feature_extraction import extract_features`.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import numpy as np
from torch.utils.data import DataLoader

from downstream.clips import NUM_FRAMES, Clip, ClipDataset, collate, find_clips
from downstream.embedder import Embedder, progress_bar
from downstream.evaluation import load_trained
from downstream.feature_files import FeatureTable, check_format, find_videos, write_features
from downstream.feature_map import write_map
from downstream.feature_parts import PartStore
from downstream.options import (
    add_model_options,
    add_speed_options,
    choose_device,
    default_workers,
    positive_seconds,
)
from downstream.report import failed_files, versions, write_json
from trainer.config import REPOSITORY, resolve_path
from trainer.distributed import DistContext, cleanup, setup
from trainer.errors import user_errors

READ_TOGETHER = 16  # windows of a file, see `clips.read_together`


@dataclass
class Extraction:
    """What `extract_features` gives back.

    table: the features with their columns, see FeatureTable; None when nothing could be read, and on all
        processes but the first.
    failed: file -> why it could not be read. reused: how many rows were there before this call.
    """

    table: FeatureTable | None
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0


def extract_features(
    videos: Sequence[str | Path],
    arch: str = "TVTSv2_B_16",
    checkpoint: str | Path | None = None,
    output: str | Path | None = None,
    *,
    window: float | None = None,
    tokens: bool = False,
    batch_size: int = 48,
    num_workers: int | None = None,
    precision: str = "fp32",
    reader: str = "decord",
    timeout: float | None = None,
    device: str | None = None,
    overwrite: bool = False,
    context: DistContext | None = None,
) -> Extraction:
    """Embed videos, with the official preprocessing, on every process that torchrun started.

    Args:
        videos: files, folders or patterns, as `find_videos` takes them.
        checkpoint: weights; None is the released file of `arch` in the repository's root.
        output: a .safetensors, .npz or .parquet file. A call that was killed goes on where it was when it is
            made again; videos already in the file are not read again unless they changed. The file then holds
            the videos of this call and no others. None writes nothing.
        window: seconds; one vector for each such piece of a video (see `clips.cut`), not one for all of it.
        tokens: also keep all tokens, "tokens" [R, L, D] (L = 1 + 12·patches, without the 1 for H/14).

    Returns:
        Extraction. Videos that cannot be read are in `failed`, the others in the table, which only the first
        process gets.

    Raises:
        ValueError, FileNotFoundError: for wrong arguments, and for an output made with other settings.
    """
    context = context or setup(device)
    files = find_videos(videos)
    temporary = None
    if output is None:
        temporary = context.broadcast_object(tempfile.mkdtemp() if context.is_main else None)
        output = Path(temporary) / "features.safetensors"
    output = check_format(output, tokens)
    trained = load_trained(arch, None if checkpoint is None else os.fspath(checkpoint), context)
    embedder = Embedder(trained.model, trained.tokenizer(), context, batch_size, precision=precision)
    facts = {
        "arch": arch,
        "checkpoint_sha256": trained.sha256,
        "num_frames": NUM_FRAMES,
        "precision": precision,
        "reader": reader,
        "window": window,
        "tokens": tokens,
    }
    store = PartStore(output, facts)
    try:
        finished = context.broadcast_object(store.begin(overwrite) if context.is_main else None)
        clips, failed = context.broadcast_object(find_clips(files, window) if context.is_main else None)
        pending = [clip for clip in clips if clip.key not in finished]
        most = min(READ_TOGETHER, batch_size)
        dataset = ClipDataset(pending, trained.model.image_size, reader, timeout, most)
        workers = default_workers() if num_workers is None else num_workers
        failed |= embed_clips(dataset, embedder, store, workers, tokens)
        table = store.finish([clip.key for clip in clips]) if context.is_main else None
        return Extraction(table, failed, reused=len(clips) - len(pending))
    finally:
        if temporary and context.is_main:
            shutil.rmtree(temporary, ignore_errors=True)


def embed_clips(
    dataset: ClipDataset, embedder: Embedder, store: PartStore, num_workers: int, tokens: bool
) -> dict[str, str]:
    """Embed this process's share of the clips, a part file a batch. Returns all processes' failures."""
    context = embedder.context
    mine = list(range(context.rank, len(dataset), context.world_size))
    clips_of_read = max(map(len, dataset.reads), default=1)
    loader = DataLoader(
        dataset,
        batch_size=embedder.batch_size // clips_of_read,
        sampler=mine,
        num_workers=min(num_workers, len(mine)),
        collate_fn=collate,
        pin_memory=context.device.type == "cuda",
    )
    failed: dict[str, str] = {}
    with progress_bar(sum(len(dataset.reads[i]) for i in mine), "clip", context) as bar:
        for batch in loader:
            failed |= {dataset.clips[row].path: reason for row, reason in batch["failures"].items()}
            if batch["rows"]:
                clips = [dataset.clips[row] for row in batch["rows"]]
                store.add(embed_batch(batch, clips, embedder, store.facts, tokens))
            bar.update(len(batch["rows"]) + len(batch["failures"]))
    gathered = context.gather_objects(failed)
    return dict(sorted(item for part in gathered for item in part.items()))


def embed_batch(
    batch: Mapping[str, Any], clips: Sequence[Clip], embedder: Embedder, facts: dict[str, Any], tokens: bool
) -> FeatureTable:
    """One forward pass -> the rows of a part."""
    with embedder.inference():
        embeds, all_tokens = embedder.model.encode_video(batch["video"])
    columns = Clip.columns(clips) | {name: np.array(batch[name]) for name in ("duration", "num_frames")}
    if tokens:
        columns["tokens"] = all_tokens.float().cpu().numpy()
    return FeatureTable(embeds.float().cpu().numpy(), columns, facts)


def extract_texts(
    texts: Sequence[str],
    arch: str,
    checkpoint: str | None,
    output: str | Path,
    *,
    batch_size: int = 48,
    precision: str = "fp32",
    context: DistContext,
) -> FeatureTable:
    """Embed texts into a file like that of `extract_features`, with a column "text"."""
    output = check_format(output)
    trained = load_trained(arch, checkpoint, context)
    embedder = Embedder(trained.model, trained.tokenizer(), context, batch_size, precision=precision)
    facts = {"arch": arch, "checkpoint_sha256": trained.sha256, "precision": precision}
    table = FeatureTable(embedder.texts(texts).numpy(), {"text": list(texts)}, facts)
    if context.is_main:
        write_features(output, table)
    return table


def read_texts(given: Sequence[str]) -> list[str]:
    """The texts themselves, or the lines of a file when its name is all that is given."""
    if len(given) == 1 and os.path.isfile(given[0]):
        lines = Path(given[0]).read_text(encoding="utf-8").splitlines()
        texts = [line.strip() for line in lines if line.strip()]
        if not texts:
            raise ValueError(f"{given[0]} holds no line of text")
        return texts
    return list(given)


def build_parser(arch: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Embed videos: one vector a video, one a window of time, or all tokens. Or embed texts.",
        epilog="examples:\n"
        "  python downstream/feature_extraction.py clips/ --arch TVTSv2_B_16 --output clips.safetensors\n"
        "  python downstream/feature_extraction.py 'films/**/*.mkv' --window 10 --output films.parquet\n"
        "  python downstream/feature_extraction.py --text captions.txt --output captions.npz\n"
        "Stopped half-way? The same command goes on where it was. Exit status: 0 all done, 1 some videos\n"
        "could not be read (named in OUTPUT.report.json), 2 a mistake in the command or a file it names.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="a file, a folder, or a quoted pattern")
    parser.add_argument("--video_path", metavar="FILE", help="a video, as the official commands name it")
    parser.add_argument("--list", metavar="FILE", help="a file that holds one of these a line")
    parser.add_argument("--text", nargs="+", metavar="TEXT", help="embed these texts, or the lines of a file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="FILE.safetensors, .npz or .parquet "
        "(default for a single video: results/features/ARCH/VIDEO.safetensors, replaced if it is there)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an output that was made with other settings"
    )
    parser.add_argument(
        "--window", type=positive_seconds, metavar="S", help="one vector for each S seconds, with its times"
    )
    parser.add_argument("--tokens", action="store_true", help="keep all tokens too (large)")
    parser.add_argument(
        "--read-timeout", type=positive_seconds, metavar="S", help="give a video up after S seconds"
    )
    parser.add_argument(
        "--report", metavar="DIR", help="also write DIR/features.html, a map of the vectors to look at"
    )
    add_model_options(parser, arch)
    add_speed_options(parser)
    return parser


def main(argv: Sequence[str] | None = None, arch: str = "TVTSv2_B_16") -> int:
    """Run the command; `arch` is the model used unless --arch names another. Returns the exit status."""
    args = build_parser(arch).parse_args(argv)
    if args.video_path:
        args.videos.append(args.video_path)
    with user_errors():
        choose_output(args)
        context = setup(choose_device(args.device))
    try:
        return run_texts(args, context) if args.text else run_videos(args, context)
    finally:
        cleanup()


def choose_output(args: argparse.Namespace) -> None:
    """The default output. Raises ValueError when there is none for what is asked."""
    if args.text and args.report:
        raise ValueError("--report draws a map of videos; there is none of texts")
    if args.output is None:
        if args.text or args.list or len(args.videos) != 1 or len(find_videos(args.videos)) != 1:
            raise ValueError("say where the features go: --output FILE.safetensors (or .npz, .parquet)")
        folder = REPOSITORY / "results" / "features" / args.arch
        args.output = str(folder / f"{Path(args.videos[0]).name}.safetensors")
        args.overwrite = True


def run_texts(args: argparse.Namespace, context: DistContext) -> int:
    with user_errors():
        table = extract_texts(
            read_texts(args.text),
            args.arch,
            args.checkpoint,
            args.output,
            batch_size=args.batch_size or 48,
            precision=args.precision or "fp32",
            context=context,
        )
    if context.is_main:
        print(f"text features: {list(table.features.shape)}, saved to {args.output}")
    return 0


def run_videos(args: argparse.Namespace, context: DistContext) -> int:
    with user_errors():
        extraction = extract_features(
            find_videos(args.videos, resolve_path(args.list) if args.list else None),
            args.arch,
            args.checkpoint,
            args.output,
            window=args.window,
            tokens=args.tokens,
            batch_size=args.batch_size or 48,
            num_workers=args.num_workers,
            precision=args.precision or "fp32",
            reader=args.reader or "decord",
            timeout=args.read_timeout,
            overwrite=args.overwrite,
            context=context,
        )
    if context.is_main:
        report(extraction, Path(args.output).expanduser())
        if args.report and extraction.table:
            page = write_map(
                Path(args.report).expanduser(), extraction.table, args.reader or "decord", args.read_timeout
            )
            print(f"page: {page}")
    return 1 if extraction.failed else 0


def report(extraction: Extraction, output: Path) -> None:
    """Say what came of it, on the terminal and in `output`.report.json."""
    table, failed = extraction.table, extraction.failed
    facts = {
        "vectors": len(table) if table else 0,
        "reused": extraction.reused,
        "failed_files": failed_files(failed),
        "settings": table.facts if table else {},
        "versions": versions(),
    }
    path = output.with_name(f"{output.name}.report.json")
    write_json(path, facts)
    if table:
        reused = f" ({extraction.reused} were there already)" if extraction.reused else ""
        print(f"video features: {list(table.features.shape)}, saved to {output}{reused}")
    if failed:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        print(f"error: {len(failed)} videos cannot be read, see {path}:\n{listed}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
