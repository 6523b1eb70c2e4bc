"""Whether all processes of a run were started alike, see the same data and begin with the same weights: else
they train on samples twice or never, wait for each other in vain, or mix what does not belong together."""

import hashlib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from data_loader.dataset import VideoDataset
from data_loader.loader import JointLoader
from trainer.checkpoint import changes
from utils.config import ConfigError, as_dict
from utils.processes import DistContext
from utils.schema import PretrainingConfig

# Keys that may have another value on another machine: where things lie there, and how it does its work.
OF_A_MACHINE = {
    *("root", "meta", "transcript_cache", "shard_cache", "shard_cache_gb", "save_dir", "clip_weights"),
    *("device", "threads", "num_workers", "cache_mb", "reader", "read_timeout", "timeout"),
    *("bucket", "tensorboard", "wandb", "profile_steps", "log_every_s", "keep_last"),
}
NAMES = 1000  # of a set, evenly spread, that tell two lists of the same length apart


def check_settings(config: PretrainingConfig, resume: str | None, context: DistContext) -> None:
    """Every rank has to call it. Raises ConfigError, on every rank, where one was started otherwise."""
    _check({**_shared(as_dict(config)), "--resume": resume}, context, "command and config")


def check_data(train: JointLoader, val: Mapping[str, DataLoader], context: DistContext) -> None:
    """Every rank has to call it. Raises ConfigError, on every rank, where one sees other lists or shards."""
    sets = {f"data.train, {name}": each for name, each in zip(train.names, train.loaders, strict=True)}
    sets |= {f"data.val, {name}": loader for name, loader in val.items()}
    _check({name: _contents(loader) for name, loader in sets.items()}, context, "lists or shards")


def check_weights(weights: Mapping[str, torch.Tensor], context: DistContext, source: str) -> None:
    """Every rank has to call it. Raises ConfigError, on every rank, where one begins with other weights.

    Names on one machine may stand for other files than on another. Random weights that two kinds of processor
    draw differ in their last bits: lengths of tensors are compared, to one part in a million.
    """
    if context.world_size == 1:
        return
    length = partial(torch.linalg.vector_norm, dtype=torch.float64)
    own = {name: length(tensor.detach()).item() for name, tensor in weights.items()}
    first, *others = context.gather_objects(own)
    for rank, other in enumerate(others, 1):
        names = [
            name
            for name in {**first, **other}
            if not math.isclose(first.get(name, math.nan), other.get(name, math.nan), rel_tol=1e-6)
        ]
        if names:
            raise ConfigError(
                f"process {rank} begins with other weights than process 0: {len(names)} of {len(first)} "
                f"tensors, {names[0]} among them. {source} has to be the same file on every machine"
            )


def _shared(settings: Any) -> Any:
    """A config's keys that all machines are to have the same values of."""
    if isinstance(settings, Mapping):
        return {key: _shared(value) for key, value in settings.items() if key not in OF_A_MACHINE}
    return [*map(_shared, settings)] if isinstance(settings, list) else settings


def _contents(loader: DataLoader) -> dict[str, Any]:
    """How many samples a set has, and a sum over the names of some."""
    assert isinstance(loader.dataset, VideoDataset)
    records, names = loader.dataset.records, hashlib.sha256()
    for i in range(0, len(records), max(1, len(records) // NAMES)):
        names.update(f"{records.id(i)}\t{records.span(i)}\n".encode(errors="surrogateescape"))
    return {"samples": len(records), "names": names.hexdigest()[:12]}


def _check(own: Mapping[str, Any], context: DistContext, what: str) -> None:
    first, *others = context.gather_objects(own)
    for rank, other in enumerate(others, 1):
        if different := [*changes(first, other, than="on process 0")]:
            raise ConfigError(
                f"process {rank} was not started as process 0: {'; '.join(different)}. "
                f"All need the same {what}"
            )
