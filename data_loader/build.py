"""The data sets and loaders that the `data` section of a pre-training config asks for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from CLIP import tokenize
from data_loader import build_dataset
from data_loader.loader import JointLoader, build_loader
from data_loader.video import check_reader
from utils.config import Config, ConfigError, resolve_path
from utils.processes import DistContext


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
    config: Config, model: Any, context: DistContext
) -> tuple[JointLoader, dict[str, DataLoader]]:
    """The joint training loader and one validation loader a set, by the set's type.

    Args:
        model: the TVTSv2 that the batches are for; its sizes and its variant's share of masked patches are
            read.

    Raises:
        ConfigError, FileNotFoundError: an option or a file of a set is wrong; the message names its key.
    """
    names = [entry["type"] for entry in config["data"]["train"]]
    train = [_loader(entry, "train", config, model, context) for entry in config["data"]["train"]]
    val = {e["type"]: build_val_loader(e, config, model, context) for e in config["data"]["val"]}
    return JointLoader(train, names), val


def build_val_loader(
    entry: Mapping[str, Any], config: Config, model: Any, context: DistContext
) -> DataLoader:
    """Batches of one of `data.val`'s sets, each sample once over all ranks."""
    return _loader(entry, "val", config, model, context)


def _loader(
    entry: Mapping[str, Any], split: str, config: Config, model: Any, context: DistContext
) -> DataLoader:
    with naming(entry, split, config):
        return build_loader(
            _dataset(entry, split, config, model),
            config["data"]["batch_size"],
            train=split == "train",
            tokenizer=tokenize,
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


def _dataset(entry: Mapping[str, Any], split: str, config: Config, model: Any) -> Dataset:
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
