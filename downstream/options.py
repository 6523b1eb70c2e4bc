"""What the evaluation commands share: their options and their config."""

import argparse
import importlib
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from joblib import cpu_count

from data_loader.dataset import known_reader
from data_loader.video import check_reader
from downstream.embedding.embedder import PRECISIONS
from downstream.embedding.encoder import OPEN_CLIP, ModelName
from downstream.prompts import prompt_templates
from model import VARIANTS
from utils.commands import CommandParser, add_overrides
from utils.config import ConfigError, load_config
from utils.processes import DistContext, setup
from utils.schema import EvaluationConfig

CONFIGS = Path(__file__).resolve().parent / "configs"


class EvaluationParser(CommandParser):
    """Keeps what it was given, as `given`: results say which command made them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        found.given = list(sys.argv[1:] if args is None else args)
        return found, unknown


def evaluation_parser(prog: str, text: str | None, datasets: Sequence[str] | None = None) -> CommandParser:
    """The options of every evaluation command, those of the official tests among them.

    prog, text: as of CommandParser.
    datasets: what to offer for --dataset; None is every config of downstream/configs/.
    """
    offered = known_datasets() if datasets is None else ", ".join(datasets)
    parser = EvaluationParser(prog, text)
    data = parser.add_argument_group("what to evaluate")
    data.add_argument("-c", "--config", metavar="FILE", help="a config, of downstream/configs/ for one")
    data.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"short for --config downstream/configs/NAME.json; NAME: {offered}",
    )
    data.add_argument(
        "--folder",
        metavar="DIR",
        help="your own videos, DIR/CLASS/VIDEO or DIR/{train,val,test}/CLASS/VIDEO: short for "
        "--dataset labels --set data.root=DIR; the folders' names are the classes' texts",
    )
    add_overrides(
        data,
        "put VALUE (JSON, or else text) in place of a config's key, such as data.root=/disk/msrvtt; "
        "may be given several times",
    )
    add_model_options(parser, more="; given several times, the models are measured one after the other")
    protocol = parser.add_argument_group("how")
    protocol.add_argument(
        "-s",
        "--sliding_window_stride",
        type=int,
        metavar="S",
        help="retrieval and linear probe: average each video over windows shifted by 0, S, 2S … frames "
        "(-1: off)",
    )
    protocol.add_argument(
        "--segments",
        type=int,
        metavar="N",
        help="see each video as N clips, of its N equal parts (default: 1)",
    )
    protocol.add_argument(
        "--crops",
        type=int,
        metavar="N",
        help="crops of each clip: 1, the centre, or 3, left, centre and right (default: 1)",
    )
    protocol.add_argument(
        "--dsl",
        action="store_true",
        help="retrieval: show the results with the dual softmax beside the plain ones",
    )
    protocol.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave out videos that cannot be read, instead of failing after all others were tried",
    )
    protocol.add_argument(
        "--output",
        metavar="DIR",
        help="results and embeddings (default: results/TASK/DATASET/ARCH/; --all makes these folders "
        "in DIR, several models folders of their names)",
    )
    protocol.add_argument(
        "--report",
        metavar="DIR",
        help="also write a page to look at, DIR/TASK_DATASET.html: queries with what came first as pictures, "
        "worst cases first, or the confusion matrix and the accuracy of each class",
    )
    add_speed_options(parser)
    return parser


def add_model_options(parser: argparse.ArgumentParser, arch: str = "TVTSv2_B_16", more: str = "") -> None:
    """--arch and --checkpoint, or --model; `more` says what several of the latter do."""
    group = parser.add_argument_group("the model")
    named = group.add_mutually_exclusive_group()
    named.add_argument(
        "--arch",
        default=arch,
        metavar="NAME",
        help=f"{', '.join(VARIANTS)}, or {OPEN_CLIP}NAME for a CLIP of open_clip (default: {arch})",
    )
    add_checkpoint_option(group)
    named.add_argument(
        "--model",
        action="append",
        metavar="NAME[:FILE]",
        dest="models",
        help=f"--arch and --checkpoint in one, as in {OPEN_CLIP}ViT-B-32:CLIP/models/ViT-B-32.pt{more}",
    )


def chosen_models(args: argparse.Namespace) -> list[ModelName]:
    """What --arch and --checkpoint, or --model, name, each once. Raises ValueError for both."""
    if not args.models:
        return [ModelName(args.arch, args.checkpoint)]
    if args.checkpoint:
        raise ValueError("--model names its own weights, NAME:FILE; leave out --checkpoint")
    return list(dict.fromkeys(map(ModelName.parse, args.models)))


def add_checkpoint_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "-r",
        "--resume",
        "--checkpoint",
        metavar="FILE",
        dest="checkpoint",
        help="trained weights, official or our own; the folder of a .dcp or of save_pretrained, too "
        "(default: the released one of that model, where python -m model.download puts it)",
    )


def add_speed_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Options that change how long it takes and, precision and reader aside, nothing else; their group."""
    group = parser.add_argument_group("speed")
    add_device_option(group)
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="fp32 (default; TF32 off), the faster bf16, or fp8, faster still on GPUs that have it",
    )
    group.add_argument("--batch-size", type=positive, metavar="B", help="clips at once, on each GPU")
    group.add_argument(
        "--num-workers", type=int, metavar="N", help="processes that read videos, for each GPU"
    )
    group.add_argument("--reader", metavar="NAME", help="how videos are decoded (default: pyav)")
    return group


def add_device_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "-d",
        "--device",
        help="cpu, cuda, cuda:1, or numbers of the GPUs to use, such as 0,1 "
        "(default: a GPU where there is one)",
    )


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def positive_number(text: str, what: str = "number") -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what} above 0")
    return number


def positive_seconds(text: str) -> float:
    return positive_number(text, "number of seconds")


def time_limit(text: str) -> float:
    """Seconds, or inf for none."""
    return math.inf if text == "inf" else positive_seconds(text)


def check_installed(reader: str) -> None:
    """See that videos can be decoded as asked for, before a model is loaded.

    Raises:
        ValueError: an unknown reader, or one whose package is missing or broken; says what to install.
    """
    check_reader(reader)
    if reader == "pyav":
        return
    try:
        importlib.import_module({"torchcodec": "torchcodec.decoders"}.get(reader, reader))
    except (ImportError, OSError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"reader {reader!r} needs the package {reader}, which cannot be imported ({why}): "
            f"pip install {reader}, or take 'pyav'"
        ) from error


def known_datasets() -> str:
    return ", ".join(sorted(path.stem for path in CONFIGS.glob("*.json")))


def config_path(config: str | None, dataset: str | None, folder: str | None = None) -> Path:
    """The config file of --config FILE, --dataset NAME or --folder DIR.

    Raises:
        ConfigError: several, none, or an unknown data set.
    """
    if sum(map(bool, (config, dataset, folder))) > 1:
        raise ConfigError("give --config, --dataset or --folder, one of them")
    if folder:
        return CONFIGS / "labels.json"
    if config:
        return Path(config)
    if not dataset:
        raise ConfigError(
            f"say what to evaluate: --config FILE, --folder DIR or --dataset NAME ({known_datasets()})"
        )
    path = CONFIGS / f"{dataset}.json"
    if not path.is_file():
        raise ConfigError(f"unknown data set {dataset!r}; known: {known_datasets()}")
    return path


def read_config(path: Path, args: argparse.Namespace) -> EvaluationConfig:
    """An evaluation's config, with what was given by --set and by options of their own put over it.

    Raises:
        FileNotFoundError, ConfigError: as load_config and prompt_templates. ValueError: as check_installed.
    """
    names = ("batch_size", "num_workers", "reader", "precision", "sliding_window_stride", "segments", "crops")
    options = [f"{name}={value}" for name in names if (value := getattr(args, name)) is not None]
    of_folder = []
    if args.folder:
        folder = Path(args.folder).expanduser().absolute()
        of_folder = [f"data.root={json.dumps(str(folder))}", f"name={json.dumps(folder.resolve().name)}"]
    config = load_config(EvaluationConfig, path, [*of_folder, *args.overrides, *options])
    check_installed(known_reader(config.reader))
    prompt_templates(config.prompts)  # before the work, not after it
    return config if config.num_workers is not None else replace(config, num_workers=default_workers())


def default_workers() -> int:
    """Half the cores for each process of this machine, 8 at most, at least 1."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(8, cpu_count() // (2 * processes)))


def join_processes(device: str | None) -> DistContext:
    """This process's place among those of the command, on the --device asked for.

    They wait a day for each other: one may have all the long videos, or have to look into every file first.
    """
    return setup(device, timeout_s=86400)
