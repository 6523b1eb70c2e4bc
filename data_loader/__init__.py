"""From files to batches: readers, frame choice, transforms, data sets and loaders.

dataset = build_dataset("msrvtt", "test", root="data/msrvtt")
loader = build_loader(dataset, batch_size=48, train=False, num_workers=8)

What stands here is imported when it is first used, so that importing one module does not import all others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_loader.collate import Collate
    from data_loader.dataset import VideoDataset
    from data_loader.failures import TooManyUnreadable, UnreadableCounter
    from data_loader.loader import EpochSampler, JointLoader, build_loader
    from data_loader.registry import DATASETS, build_dataset

__all__ = [
    "DATASETS",
    "Collate",
    "EpochSampler",
    "JointLoader",
    "TooManyUnreadable",
    "UnreadableCounter",
    "VideoDataset",
    "build_dataset",
    "build_loader",
]

MODULES = {
    "collate": ("Collate",),
    "dataset": ("VideoDataset",),
    "failures": ("TooManyUnreadable", "UnreadableCounter"),
    "loader": ("EpochSampler", "JointLoader", "build_loader"),
    "registry": ("DATASETS", "build_dataset"),
}


def __getattr__(name: str) -> Any:
    for module, names in MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
