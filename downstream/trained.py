"""A trained model, loaded: where its weights are looked for, and which they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downstream.cache import sha256_of
from model import VARIANTS, create_model, load_checkpoint
from model.download import SOURCES
from utils.config import nearest_key, resolve_path
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


def find_checkpoint(checkpoint: str | None, arch: str) -> Path:
    """The weights to load: a file, or the folder of a distributed training checkpoint.

    Raises:
        ValueError: an unknown model.
        FileNotFoundError: there is no such file; says where it goes and where it comes from.
    """
    if arch not in VARIANTS:
        raise ValueError(f"unknown model --arch {arch}; {nearest_key(arch, VARIANTS)}")
    released = SOURCES[arch].place if arch in SOURCES else None
    named = checkpoint or released
    if named is None:
        raise FileNotFoundError(f"there is no released file of {arch}; name your own with --checkpoint FILE")
    path = resolve_path(named)
    if path.is_dir() and not any(path.glob("shard-*.safetensors")):  # saved with save_pretrained
        path = path / "model.safetensors"
    if path.exists():
        return path
    if released is None:
        raise FileNotFoundError(
            f"no weights file {path}; scripts/demo.sh trains {arch} and says where it puts it"
        )
    raise FileNotFoundError(
        f"no weights file {path}\n"
        f"The released weights of {arch} belong at {released}; fetch them with: "
        f"python -m model.download {arch}\n"
        "Or name another file with --checkpoint FILE."
    )
