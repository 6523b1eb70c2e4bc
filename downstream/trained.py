"""A trained model, loaded: where its weights are looked for, and which they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import VARIANTS, create_model
from model.checkpoint import load_state, read_state_dict
from model.download import SOURCES
from utils.config import nearest_key, resolve_path
from utils.files import sha256_of
from utils.processes import DistContext


@dataclass(frozen=True)
class TrainedModel:
    """A loaded model and which file, or folder of a distributed checkpoint, its weights came from."""

    model: Any
    arch: str
    path: Path
    sha256: str

    @property
    def num_frames(self) -> int:
        """Of a clip at most; what it was trained with, 12 in the released files."""
        return self.model.variant.num_frames

    @property
    def metadata(self) -> dict[str, str]:
        """What says in a table of features which model made them."""
        return {"arch": self.arch, "checkpoint_sha256": self.sha256}


def load_trained(arch: str, checkpoint: str | None, context: DistContext) -> TrainedModel:
    """Build `arch` for the number of frames that its weights (default: the released file) were trained with,
    load them, and move it to the context's device.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, or they do not fit; see `find_checkpoint`
            and `load_checkpoint`.
    """
    path = find_checkpoint(checkpoint, arch)
    state = read_state_dict(path)
    frames = state.get("video_model.temporal_embedding")
    num_frames = len(frames) if frames is not None and frames.ndim == 2 and len(frames) else None
    model = create_model(arch, sort_head=False, num_frames=num_frames)
    load_state(model, state, path)
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
