"""From the command line to a table: what retrieval, recognition and multiple choice have in common."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CLIP import tokenize as clip_tokenize
from data_loader import build_dataset
from data_loader.base import VideoDataset
from data_loader.failures import Failure
from downstream.cache import sha256_of
from downstream.embedder import Embedder, VideoEmbeddings
from downstream.options import find_checkpoint, join_processes, read_config
from downstream.report import (
    Evaluation,
    evaluation_table,
    failed_files,
    paper_tables,
    write_json,
    write_results,
)
from downstream.report_pages import write_report
from downstream.windows import SlidingWindows
from model import create_model, load_checkpoint
from OpenCLIP import tokenize as openclip_tokenize
from utils.config import REPOSITORY, Config, ConfigError, resolve_path
from utils.errors import STOPS_A_RUN, run_errors, user_errors
from utils.files import check_folder, or_warn
from utils.processes import DistContext, leaving_group
from utils.text import counted

Evaluate = Callable[[VideoDataset, VideoEmbeddings, Embedder, Config], Evaluation]


@dataclass(frozen=True)
class TrainedModel:
    """A loaded model and which file, or folder of a distributed checkpoint, its weights came from."""

    model: Any
    arch: str
    path: Path
    sha256: str

    def tokenizer(self) -> Callable[[list[str]], Any]:
        return openclip_tokenize if self.model.variant.clip_family == "OpenCLIP" else clip_tokenize


class UnreadableVideosError(RuntimeError):
    """Videos of the data set could not be read; the message names each."""


def load_trained(arch: str, checkpoint: str | None, context: DistContext) -> TrainedModel:
    """Build `arch`, load its weights (default: the released file), and move it to the context's device."""
    path = find_checkpoint(checkpoint, arch)
    model = create_model(arch, sort_head=False)
    load_checkpoint(model, path)
    sha256 = context.broadcast_object(sha256_of(path) if context.is_main else None)
    return TrainedModel(model.to(context.device).eval(), arch, path, sha256)


def run_command(args: Namespace, tasks: Mapping[str, Evaluate]) -> int:
    """Evaluate the one data set that the options name; the exit status."""
    with user_errors():
        config = read_config(args)
        if config["task"] not in tasks:
            known = " or ".join(tasks)
            raise ConfigError(
                f"the task of {config['name']} is {config['task']}, not {known}; test.py runs any"
            )
        context = join_processes(args.device)
    with leaving_group():
        with user_errors():
            trained = load_trained(args.arch, args.checkpoint, context)
            dataset = open_dataset(config, trained.model.image_size)
            check_places(args, output_folder(args, config), context)
        try:
            with run_errors():
                evaluation = evaluate_dataset(dataset, config, trained, context, tasks[config["task"]], args)
                if context.is_main:
                    print(evaluation_table(evaluation, config, args.arch, args.dsl))
                    write_outputs(evaluation, dataset, config, trained, args)
        except UnreadableVideosError as error:
            if context.is_main:
                print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def run_all(args: Namespace, names: Sequence[str], tasks: Mapping[str, Evaluate]) -> int:
    """Evaluate every data set of `names` that is there, print the paper's tables; the exit status."""
    with user_errors():
        if args.config or args.dataset:
            raise ConfigError("--all takes no --config or --dataset")
        configs = [read_config(Namespace(**vars(args) | {"dataset": name})) for name in names]
        context = join_processes(args.device)
    opened, results, notes, status = [], [], [], 0
    with leaving_group():
        with user_errors():
            trained = load_trained(args.arch, args.checkpoint, context)
        for config in configs:
            if config["task"] != "retrieval":
                config["sliding_window_stride"] = -1
            try:
                opened.append((config, open_dataset(config, trained.model.image_size)))
            except FileNotFoundError as error:
                notes.append(f"{config['name']}: left out, not all of it is there. {error}")
            except ValueError as error:
                notes.append(f"{config['name']}: failed. {error}")
                status = 1
        if not opened and not status:
            notes.append("none of the data sets is there: see the README's table for where they go")
        if opened:
            with user_errors():
                check_places(args, results_root(args), context)
        for config, dataset in opened:
            try:
                evaluation = evaluate_dataset(dataset, config, trained, context, tasks[config["task"]], args)
                results.append((config, evaluation))
                if context.is_main:
                    write_outputs(evaluation, dataset, config, trained, args)
            except (UnreadableVideosError, *STOPS_A_RUN) as error:
                notes.append(f"{config['name']}: failed. {error}")
                status = 1
    if context.is_main:
        print("\n\n".join([*notes, *([paper_tables(results, args.arch)] if results else [])]))
    return status if results else 1


def evaluate_dataset(
    dataset: VideoDataset,
    config: Config,
    trained: TrainedModel,
    context: DistContext,
    evaluate: Evaluate,
    args: Namespace,
) -> Evaluation:
    """Embed and measure; the embeddings are kept in the output folder.

    Raises:
        UnreadableVideosError: some videos cannot be read and --allow-missing was not given.
    """
    begin = time.perf_counter()
    output = output_folder(args, config)
    embedder = build_embedder(config, trained, context, output)
    videos = embed_videos(dataset, embedder, config)
    missing = list(videos.missing.values())
    if missing:
        allowed = args.allow_missing and len(missing) < len(dataset)
        report_missing(missing, len(dataset), output, allowed, context)
    evaluation = evaluate(dataset, videos, embedder, config)
    evaluation.missing = missing
    evaluation.seconds = time.perf_counter() - begin
    return evaluation


def check_places(args: Namespace, output: Path, context: DistContext) -> None:
    """See before the work that its results, and the page of --report, can be written. Raises WriteError."""
    if context.is_main:
        check_folder(output)
        if args.report:
            check_folder(Path(args.report).expanduser())


def write_outputs(
    evaluation: Evaluation, dataset: VideoDataset, config: Config, trained: TrainedModel, args: Namespace
) -> None:
    """Write results.json and, if --report asks for one, the page, and say where it is.

    Raises:
        WriteError: one of them cannot be written.
    """
    checkpoint = {"path": str(trained.path), "sha256": trained.sha256}
    write_results(output_folder(args, config) / "results.json", evaluation, config, trained.arch, checkpoint)
    if args.report:
        about = f"{trained.arch}, weights {trained.path}, SHA-256 {trained.sha256}"
        table = evaluation_table(evaluation, config, trained.arch, args.dsl)
        page = write_report(Path(args.report).expanduser(), evaluation, dataset, config, about, table)
        print(f"page: {page}")


def build_embedder(config: Config, trained: TrainedModel, context: DistContext, cache_dir: Path) -> Embedder:
    """The model at work as the config says, keeping its embeddings in `cache_dir`."""
    return Embedder(
        trained.model,
        trained.tokenizer(),
        context,
        batch_size=config["batch_size"],
        num_workers=config["num_workers"],
        precision=config["precision"],
        cache_dir=cache_dir,
        fingerprint={"arch": trained.arch, "checkpoint": trained.sha256},
    )


def open_dataset(config: Config, image_size: int, split: str | None = None) -> VideoDataset:
    """The data set of a config in its evaluation form; items of unreadable files say so.

    `split` other than the config's own ("test" if it has none): the videos of that one, with test clips.
    """
    data, stride = dict(config["data"]), config["sliding_window_stride"]
    if stride > 0 and config["task"] not in ("retrieval", "linear_probe"):
        raise ConfigError("sliding_window_stride works for retrieval and linear probes only, as officially")
    if not {"type", "root"} <= data.keys():
        raise ConfigError(f"the data of {config['name']} needs a type and a root; it has {', '.join(data)}")
    general = {
        "meta": resolve_path(config["meta"]),
        "num_frames": config["num_frames"],
        "image_size": image_size,
        "reader": config["reader"],
        "timeout": config["read_timeout"],
        "allow_missing": True,
    }
    misplaced = sorted(general.keys() & data.keys())
    if misplaced:
        raise ConfigError(f"{', '.join(misplaced)} cannot be set in data, only at the top of the config")
    name, own_split, root = data.pop("type"), data.pop("split", "test"), resolve_path(data.pop("root"))
    try:
        return build_dataset(name, split or own_split, root=root, view="test", **general, **data)
    except FileNotFoundError as error:
        source = f"\nWhere to get it: {config['source']}" if config["source"] else ""
        raise FileNotFoundError(f"{error}{source}") from error


def embed_videos(dataset: VideoDataset, embedder: Embedder, config: Config) -> VideoEmbeddings:
    """Embeddings of all videos of a data set, over sliding windows if the config asks for them."""
    stride = config["sliding_window_stride"]
    clips = SlidingWindows(dataset, stride) if stride > 0 else dataset
    facts = {key: config[key] for key in ("num_frames", "reader", "sliding_window_stride", "data")}
    return embedder.videos(clips, dataset.video_paths, **facts)


def results_root(args: Namespace) -> Path:
    return Path(args.output).expanduser() if args.output else REPOSITORY / "results"


def output_folder(args: Namespace, config: Config) -> Path:
    """Where the results of a data set go; with --all each has a folder of its own."""
    if args.output and not getattr(args, "all", False):
        return results_root(args)
    return results_root(args) / config["task"] / config["name"] / args.arch


def report_missing(
    missing: Sequence[Failure], total: int, output: Path, allowed: bool, context: DistContext
) -> None:
    """Name every unreadable video on the terminal and in failed_files.json; fail unless they are allowed."""
    listed = "\n".join(f"  {failure}" for failure in missing)
    message = f"{len(missing)} of {counted(total, 'videos')} cannot be read:\n{listed}"
    if context.is_main:
        with or_warn():
            write_json(output / "failed_files.json", failed_files(missing))
    if not allowed:
        raise UnreadableVideosError(f"{message}\nMend them, or evaluate without them: --allow-missing")
    if context.is_main:
        print(f"warning: {message}", file=sys.stderr)
