"""Features of your own videos, or texts: one vector a video, one a window of time, or all tokens.

    python downstream/feature_extraction.py clips/ --arch TVTSv2_B_16 --output clips.safetensors
    python downstream/feature_extraction.py clips/ --arch TVTSv2_B_32 -o clips.npz  # on a laptop
    python downstream/feature_extraction.py 'films/**/*.mkv' --window 10 --output films.parquet
    python downstream/feature_extraction.py --text captions.txt --output captions.npz

Stopped half-way, the same command goes on where it was. Other videos are added to an output that is there.
As a function: `from downstream.features import extract_features`. Exit status: 0 all done, 1 some videos
could not be read (named in OUTPUT.report.json), 2 a mistake in the command or a file it names, 130 stopped by
Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_loader.video import FRAME_RATE
from downstream.embedding.encoder import ModelName, folder_name
from downstream.embedding.shards import Shard, shards_folder
from downstream.features import READ_TIMEOUT, Extraction, extract_features, extract_texts, merge_shards
from downstream.inputs import check_named, find_videos, read_texts
from downstream.options import (
    add_model_options,
    add_speed_options,
    chosen_models,
    join_processes,
    positive,
    positive_number,
    positive_seconds,
    time_limit,
)
from downstream.report import failed_files, write_json
from downstream.report.feature_map import write_map
from utils.commands import CommandParser
from utils.config import resolve_path
from utils.environment import versions
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import check_folder
from utils.processes import DistContext, leaving_group
from utils.text import counted, one_line


def build_parser(arch: str) -> argparse.ArgumentParser:
    parser = CommandParser("python downstream/feature_extraction.py", __doc__)
    given = parser.add_argument_group("what to embed")
    given.add_argument(
        "videos",
        nargs="*",
        metavar="VIDEO",
        help="a file, a folder (of videos, or of numbered frames), "
        "a tar file, a URL (s3://, https:// …), or a quoted pattern with *, ? or **",
    )
    given.add_argument("--video_path", metavar="FILE", help="a video, as the official commands name it")
    given.add_argument(
        "--list",
        metavar="FILE",
        help="a file that holds one of these a line; or a csv, tsv, jsonl or parquet file with a column path "
        "and maybe start and end (seconds or 00:01:02.5), whose other columns travel to the output",
    )
    given.add_argument(
        "--sidecars",
        action="store_true",
        help="keep the a.json and a.txt that stand beside a.mp4 in a tar file, as columns of the output",
    )
    given.add_argument("--text", nargs="+", metavar="TEXT", help="embed these texts, or the lines of a file")
    written = parser.add_argument_group("what comes out")
    written.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="FILE.safetensors, .npz, .parquet or .h5 "
        "(default for a single video: results/features/ARCH/VIDEO.safetensors)",
    )
    written.add_argument(
        "--one-file-each",
        action="store_true",
        help="make --output a folder, of VIDEO.npy [pieces, D] and VIDEO.json for each video",
    )
    written.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the vectors that the output has, instead of adding to them",
    )
    written.add_argument("--tokens", action="store_true", help="keep all tokens too (large)")
    written.add_argument(
        "--report", metavar="DIR", help="also write DIR/features.html, a map of the vectors to look at"
    )
    parts = parser.add_argument_group("many machines")
    parts.add_argument(
        "--shard",
        type=Shard.parse,
        metavar="K/N",
        help="embed every N-th video alone, from the K-th (1/N to N/N), into OUTPUT.shards/",
    )
    parts.add_argument(
        "--merge", action="store_true", help="join the shards of --output; of the other options it takes none"
    )
    add_piece_options(parser)
    add_model_options(parser, arch)
    add_speed_options(parser).add_argument(
        "--read-timeout",
        type=time_limit,
        metavar="S",
        default=READ_TIMEOUT,
        help="give a video up after S seconds, or never with inf",
    )
    return parser


def add_piece_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pieces of videos, and their frames")
    group.add_argument(
        "--window", type=positive_seconds, metavar="S", help="one vector for each S seconds, with its times"
    )
    group.add_argument(
        "--stride",
        type=positive_seconds,
        metavar="S",
        help="from one window's start to the next (default: the window): less overlaps, more leaves gaps",
    )
    group.add_argument("--shots", action="store_true", help="one vector a shot, or for the windows of each")
    group.add_argument(
        "--frames", type=positive, metavar="N", help="that the model sees of each (default: all it takes, 12)"
    )
    group.add_argument(
        "--fps",
        type=positive_number,
        metavar="F",
        help="take frames F times a second; without --window it lasts as long as N frames do",
    )
    group.add_argument(
        "--folder-fps",
        type=positive_number,
        metavar="F",
        default=FRAME_RATE,
        help="frames a second of folders of numbered frames",
    )


@one_line_interrupts()
def main(argv: Sequence[str] | None = None, arch: str = "TVTSv2_B_16") -> int:
    """Run the command; `arch` is the model used unless --arch names another. Returns the exit status."""
    parser = build_parser(arch)
    args = parser.parse_args(argv)
    if args.video_path:
        args.videos.append(args.video_path)
    with user_errors():
        if args.merge:
            check_merge(parser, args)
        model = chosen_model(args)
        check_named(args.videos)
        choose_output(args, model)
        context = join_processes(args.device)
        if args.report and context.is_main:
            check_folder(Path(args.report).expanduser())
    with leaving_group():
        return run_texts(args, model, context) if args.text else run_videos(args, model, context)


def check_merge(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises ValueError for options that say nothing to --merge."""
    taken = {"merge", "output", "one_file_each", "overwrite", "report", "reader", "read_timeout"}
    given = [name for name, value in vars(args).items() if value not in (parser.get_default(name), [])]
    others = ["VIDEO" if name == "videos" else f"--{name}" for name in given if name not in taken]
    if others:
        raise ValueError(f"--merge takes what the shards have; leave out {', '.join(others)}")
    if args.output is None:
        raise ValueError("--merge needs the --output of the shards")


def chosen_model(args: argparse.Namespace) -> ModelName:
    """The one model of the command. Raises ValueError."""
    models = chosen_models(args)
    if len(models) > 1:
        raise ValueError("a file of features is of one model: give --model once, and run once for each")
    return models[0]


def choose_output(args: argparse.Namespace, model: ModelName) -> None:
    """The default output. Raises ValueError when there is none for what is asked."""
    if args.text and args.one_file_each:
        raise ValueError("--one-file-each is for videos; texts go into one file")
    if args.shard and (args.text or args.report):
        raise ValueError(
            "--shard is for videos; texts are embedded in a minute"
            if args.text
            else "--shard sees a part of the videos alone; give --report to --merge"
        )
    if args.text and args.report:
        raise ValueError("--report draws a map of videos; there is none of texts")
    if args.output is None:
        if not (args.text or args.list or args.videos):
            raise ValueError(
                "no videos given: name files, folders or patterns, or a list of them with --list"
            )
        alone = len(args.videos) == 1 and not (args.text or args.list)
        found = find_videos(args.videos)[0] if alone else []
        if len(found) != 1:
            raise ValueError("say where the features go: --output FILE.safetensors (or .npz, .parquet, .h5)")
        name = os.fsdecode(os.fsencode(Path(found[0]).name)[:200])  # the endings must fit a file's name, too
        args.output = str(Path("results") / "features" / folder_name(model.arch) / f"{name}.safetensors")


def run_texts(args: argparse.Namespace, model: ModelName, context: DistContext) -> int:
    with run_errors(), user_errors():
        table = extract_texts(
            read_texts(args.text),
            *model,
            args.output,
            batch_size=args.batch_size or 48,
            precision=args.precision or "fp32",
            overwrite=args.overwrite,
            context=context,
        )
    if table is not None:
        print(f"text features: {list(table.features.shape)}, saved to {args.output}")
    return 0


def run_videos(args: argparse.Namespace, model: ModelName, context: DistContext) -> int:
    output = Path(args.output).expanduser()
    with run_errors(), user_errors():
        if args.merge:
            extraction = merge_shards(
                output, one_file_each=args.one_file_each, overwrite=args.overwrite, context=context
            )
        else:
            extraction = embed_videos(args, model, context)
    if context.is_main:
        with run_errors():
            report(extraction, output, args.shard)
            if args.report and extraction.table:
                folder, reader = Path(args.report).expanduser(), args.reader or "pyav"
                print(f"page: {write_map(folder, extraction.table, reader, args.read_timeout)}")
    return 1 if extraction.failed else 0


def embed_videos(args: argparse.Namespace, model: ModelName, context: DistContext) -> Extraction:
    return extract_features(
        args.videos,
        *model,
        args.output,
        one_file_each=args.one_file_each,
        list_file=resolve_path(args.list) if args.list else None,
        sidecars=args.sidecars,
        window=args.window,
        stride=args.stride,
        frames=args.frames,
        fps=args.fps,
        shots=args.shots,
        tokens=args.tokens,
        batch_size=args.batch_size or 48,
        num_workers=args.num_workers,
        precision=args.precision or "fp32",
        reader=args.reader or "pyav",
        timeout=args.read_timeout,
        folder_fps=args.folder_fps,
        overwrite=args.overwrite,
        shard=args.shard,
        context=context,
    )


def report(extraction: Extraction, output: Path, shard: Shard | None) -> None:
    """Say what came of it, on the terminal and beside what was written, in FILE.report.json."""
    table, failed = extraction.table, extraction.failed
    if shard is not None:
        output = shards_folder(output) / f"{shard}.safetensors"
    path = output.with_name(f"{output.name}.report.json")
    if table:
        notes = [f"{extraction.reused} were there already"] if extraction.reused else []
        notes += [f"{extraction.moved} of them from files that have been moved"] if extraction.moved else []
        notes += [f"{counted(extraction.others, 'other vectors')} kept"] if extraction.others else []
        told = f" ({', '.join(notes)})" if notes else ""
        print(f"video features: {list(table.features.shape)}, saved to {one_line(str(output))}{told}")
    if failed:
        listed = "\n".join(f"  {one_line(name)}: {reason}" for name, reason in failed.items())
        print(
            f"error: {counted(len(failed), 'videos')} cannot be read, see {path}:\n{listed}", file=sys.stderr
        )
    found = {
        "vectors": len(table) if table else 0,
        "reused": extraction.reused,
        "failed_files": failed_files(failed.items()),
        "settings": table.metadata if table else {},
        "versions": versions(),
    }
    write_json(path, found)


if __name__ == "__main__":
    sys.exit(main())
