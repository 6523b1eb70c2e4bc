"""From a resolved config to a trainer ready to run: model, starting weights, data sets, loaders."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import CLIP
import OpenCLIP
from data_loader import build_dataset
from data_loader.loader import JointLoader, build_loader
from data_loader.video import check_reader
from model import create_model, load_checkpoint, load_clip_weights
from trainer.boards import import_wandb
from trainer.checkpoints import list_checkpoints, prepare_folder
from trainer.run_log import setup_logging
from trainer.trainer import Trainer
from utils.config import Config, ConfigError, resolve_path
from utils.processes import DistContext

logger = logging.getLogger(__name__)

# What the model's table of variants decides unless the config says otherwise.
MODEL_SWITCHES = (
    "num_frames",
    "attention",
    "activation_checkpointing",
    "freeze_text_embeddings",
    "temporal_attention_init",
    "trained_text_blocks",
)


def build_trainer(config: Config, context: DistContext, resume: str | None = None) -> Trainer:
    """Build everything that a run needs.

    Args:
        config: a resolved pre-training config.
        resume: a checkpoint's path, "auto", or None for a run that must not overwrite an earlier one.

    Raises:
        ConfigError: a value of the config cannot be used.
        FileExistsError: the run's folder holds checkpoints already and `resume` is None.
        FileNotFoundError: starting weights or data are missing; the message says where they go.
        RunWriteError: the run's folder cannot be written.
    """
    check_data(config["data"])
    run_dir = resolve_path(config["trainer"]["save_dir"]) / config["name"]
    if context.is_main:
        prepare_folder(run_dir)
        if config["trainer"]["wandb"]:
            import_wandb()  # said before the training if it is missing
    setup_logging(run_dir, context.is_main)
    if resume is None and list_checkpoints(run_dir):
        raise FileExistsError(
            f"{run_dir} holds the checkpoints of an earlier run: go on with --resume auto, or give this run "
            "another name (--set name=…)"
        )
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    torch.manual_seed(config["seed"])
    model = build_model(config, starting_weights=resume is None)
    train_loader, val_loaders = build_loaders(config, model, context)
    trainer = Trainer(config, model, train_loader, val_loaders, run_dir, context)
    if resume is not None:
        resumed = trainer.resume(resume)
        if resumed is None:
            load_starting_weights(trainer.model, config)
    return trainer


def build_model(config: Config, starting_weights: bool = True) -> nn.Module:
    """The variant with the config's switches and its starting weights."""
    arch = config["arch"]
    switches = {key: arch[key] for key in MODEL_SWITCHES if arch[key] is not None}
    model = create_model(arch["type"], **switches)
    if starting_weights:
        load_starting_weights(model, config)
    return model


def load_starting_weights(model: nn.Module, config: Config) -> None:
    """Load what `arch.start_from` names: "clip", "random" (nothing), or a checkpoint's path."""
    source = config["arch"]["start_from"]
    if source == "random":
        return
    if source == "clip":
        report = load_clip_weights(model, config["arch"]["clip_weights"])
    else:
        report = load_checkpoint(model, resolve_path(source))
    logger.info("%s", report)


def family(model: nn.Module) -> Any:
    """The package of the starting weights and tokenizer of a model: CLIP or OpenCLIP."""
    return OpenCLIP if model.variant.clip_family == "OpenCLIP" else CLIP


def check_data(data: Mapping[str, Any]) -> None:
    """What can be said of the config's `data` before anything is built or read.

    Raises:
        ConfigError: no training set, a set without a type, two of one type, or a reader that does not exist.
    """
    check_reader_key(data["reader"], "data.reader")
    for split in ("train", "val"):
        names = [entry.get("type") for entry in data[split]]
        if len(set(names)) < len(names) or None in names or (split == "train" and not names):
            raise ConfigError(f"data.{split} needs sets that each name a type of their own; it has {names}")
        for i, entry in enumerate(data[split]):
            check_reader_key(entry.get("reader", data["reader"]), f"data.{split}.{i}.reader")


def check_reader_key(reader: str, key: str) -> None:
    """Raises ConfigError on a reader that does not exist. The release's "cv2" is taken for the default."""
    if reader != "cv2":
        try:
            check_reader(reader)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from error


def build_loaders(
    config: Config, model: nn.Module, context: DistContext
) -> tuple[JointLoader, dict[str, DataLoader]]:
    """The joint training loader and one validation loader a set, by the set's type.

    Raises:
        ConfigError, FileNotFoundError: an option or a file of a set is wrong; the message names its key.
    """
    names = [entry["type"] for entry in config["data"]["train"]]
    train = [_loader(entry, "train", config, model, context) for entry in config["data"]["train"]]
    val = {e["type"]: build_val_loader(e, config, model, context) for e in config["data"]["val"]}
    return JointLoader(train, names), val


def build_val_loader(
    entry: Mapping[str, Any], config: Config, model: nn.Module, context: DistContext
) -> DataLoader:
    """Batches of one of `data.val`'s sets, each sample once over all ranks."""
    return _loader(entry, "val", config, model, context)


def _loader(
    entry: Mapping[str, Any], split: str, config: Config, model: nn.Module, context: DistContext
) -> DataLoader:
    with naming(entry, split, config):
        return build_loader(
            _dataset(entry, split, config, model),
            config["data"]["batch_size"],
            train=split == "train",
            tokenizer=family(model).tokenize,
            num_workers=config["data"]["num_workers"],
            rank=context.rank,
            world_size=context.world_size,
            seed=config["seed"],
        )


@contextmanager
def naming(entry: Mapping[str, Any], split: str, config: Config) -> Iterator[None]:
    """Let an error within say which key of the config asked for the set: it may be a default."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        kind = ConfigError if isinstance(error, ValueError) else FileNotFoundError
        place = config["data"][split].index(entry)
        raise kind(f"data.{split}.{place}, of type {entry['type']}: {error}") from error


def _dataset(entry: Mapping[str, Any], split: str, config: Config, model: nn.Module) -> Dataset:
    data, mask_ratio = config["data"], config["arch"]["mask_ratio"]
    settings = {
        "meta": resolve_path(data["meta"]),
        "num_frames": config["arch"]["num_frames"],
        "image_size": model.image_size,
        "mask_ratio": model.variant.mask_ratio if mask_ratio is None else mask_ratio,
        "num_patches": model.num_patches,
        "reader": data["reader"],
        "timeout": data["read_timeout"],
        "cache_mb": data["cache_mb"],
        "seed": config["seed"],
        **entry,
    }
    for folder in ("root", "transcript_cache"):
        if settings.get(folder):
            settings[folder] = resolve_path(settings[folder])
    kind = settings.pop("type")
    return build_dataset(kind, split, **settings)
