"""A trained model, loaded, and which weights it has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downstream.cache import sha256_of
from downstream.options import find_checkpoint
from model import create_model, load_checkpoint
from utils.processes import DistContext


@dataclass(frozen=True)
class TrainedModel:
    """A loaded model and which file, or folder of a distributed checkpoint, its weights came from."""

    model: Any
    arch: str
    path: Path
    sha256: str


def load_trained(arch: str, checkpoint: str | None, context: DistContext) -> TrainedModel:
    """Build `arch`, load its weights (default: the released file), and move it to the context's device.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, or they do not fit; see `find_checkpoint`
            and `load_checkpoint`.
    """
    path = find_checkpoint(checkpoint, arch)
    model = create_model(arch, sort_head=False)
    load_checkpoint(model, path)
    sha256 = context.broadcast_object(sha256_of(path) if context.is_main else None)
    return TrainedModel(model.to(context.device).eval(), arch, path, sha256)
