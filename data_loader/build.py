"""The data sets and loaders that the `data` section of a pre-training config asks for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from CLIP import tokenize
from data_loader import VideoDataset, build_dataset
from data_loader.held_out import PartOfRecords, part_for
from data_loader.labels import LabelRecords
from data_loader.loader import JointLoader, build_loader
from data_loader.shard_files import locate
from utils.config import ConfigError, output_path, resolve_path
from utils.processes import DistContext
from utils.schema import PretrainingConfig, TrainingSetConfig


def build_loaders(
    config: PretrainingConfig, model: Any, context: DistContext
) -> tuple[JointLoader, dict[str, DataLoader]]:
    """The joint training loader and one validation loader a set, by the set's name.

    Args:
        model: the TVTSv2 that the batches are for; its sizes and its variant's share of masked patches are
            read.

    Raises:
        ConfigError, FileNotFoundError: an option or a file of a set is wrong; the message names its key.
    """
    names = [entry.called for entry in config.data.train]
    weights = [entry.weight or 1 for entry in config.data.train]
    train = [_loader(entry, "train", config, model, context) for entry in config.data.train]
    val = {e.called: build_val_loader(e, config, model, context) for e in config.data.val}
    return JointLoader(train, names, weights), val


def classes_of(train: JointLoader, val: Mapping[str, DataLoader]) -> list[str]:
    """The names of the classes that a class head is to tell apart.

    Raises ConfigError: the data are not one training set with a label a video, validated on such ones.
    """
    if len(train.loaders) > 1:
        raise ConfigError(f"arch.class_head takes one training set; data.train has {', '.join(train.names)}")
    of_train = _class_names("data.train", train.names[0], train.loaders[0])
    for name, loader in val.items():
        if _class_names("data.val", name, loader) != of_train:
            raise ConfigError(
                f"data.val, of type {name}: its classes are not those of data.train; where lists have "
                "labels, name all classes in one file (data.train.0.classes, data.val.0.classes)"
            )
    return of_train


def _class_names(key: str, name: str, loader: DataLoader) -> list[str]:
    assert isinstance(loader.dataset, VideoDataset)
    records = loader.dataset.records
    records = records.whole if isinstance(records, PartOfRecords) else records
    if not isinstance(records, LabelRecords):
        raise ConfigError(
            f"{key}, of type {name}: arch.class_head needs videos with a label each, as type labels has; "
            "several labels a video can be probed: downstream/probe.py"
        )
    return records.class_names


def build_val_loader(
    entry: TrainingSetConfig, config: PretrainingConfig, model: Any, context: DistContext
) -> DataLoader:
    """Batches of one of `data.val`'s sets, each sample once over all ranks."""
    return _loader(entry, "val", config, model, context)


def _loader(
    entry: TrainingSetConfig, split: str, config: PretrainingConfig, model: Any, context: DistContext
) -> DataLoader:
    with naming(entry, split, config):
        return build_loader(
            _dataset(entry, split, config, model),
            config.data.batch_size,
            train=split == "train",
            tokenizer=tokenize,
            num_workers=config.data.num_workers,
            rank=context.rank,
            world_size=context.world_size,
            seed=config.seed,
        )


@contextmanager
def naming(entry: TrainingSetConfig, split: str, config: PretrainingConfig) -> Iterator[None]:
    """Let an error within say which key of the config asked for the set: it may be a default."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        kind = ConfigError if isinstance(error, ValueError) else FileNotFoundError
        place = getattr(config.data, split).index(entry)
        raise kind(f"data.{split}.{place}, of type {entry.type}: {error}") from error


def _dataset(entry: TrainingSetConfig, split: str, config: PretrainingConfig, model: Any) -> VideoDataset:
    data, mask_ratio = config.data, config.arch.mask_ratio
    options = {
        "meta": data.meta,
        "num_frames": config.arch.num_frames,
        "image_size": model.image_size,
        "mask_ratio": model.variant.mask_ratio if mask_ratio is None else mask_ratio,
        "num_patches": model.num_patches,
        "reader": data.reader,
        "timeout": data.read_timeout,
        "cache_mb": data.cache_mb,
        "seed": config.seed,
        **entry.options(),
    }
    options |= {"meta": resolve_path(options["meta"]), "root": locate(options["root"])}
    for folder in ("transcript_cache", "shard_cache"):
        if folder in options:
            options[folder] = output_path(options[folder])
    kind = options.pop("type")
    if not data.held_out:
        return build_dataset(kind, split, **options)
    dataset = build_dataset(kind, "train", view=split, **options)
    dataset.records = part_for(split, dataset.records, data.held_out)
    return dataset
