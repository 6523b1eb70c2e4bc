"""Encoders: what evaluation, probe, extraction and search ask of a model, and how a name becomes one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from CLIP import tokenize
from data_loader.transforms import Transform, clip_transform, feature_transform
from model import VARIANTS, create_model
from model.checkpoint import WithoutValues, load_state, read_state_dict
from model.class_head import ClassHead, head_of
from model.download import SOURCES
from utils.config import nearest_key, resolve_path
from utils.files import sha256_of
from utils.processes import DistContext

OPEN_CLIP = "open_clip:"  # before the names of open_clip's models


class VideoTextModel(Protocol):
    """The model of an encoder, an nn.Module say: B clips or M texts in, as many vectors of a size D out.

    It computes on the device that `to` moved it to and gives its outputs there; inputs come from any. Vectors
    are compared by cosine and need no normalising.
    """

    def to(self, device: torch.device) -> Self: ...

    def eval(self) -> Self: ...

    def encode_video(self, video: Tensor, *, valid_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Clips to embeddings.

        Args:
            video: uint8 [B, T, 3, H, W], what the encoder's transforms make of frames, T at most the
                encoder's `num_frames` unless it takes more. Normalising is the model's part.
            valid_frames: int64 [B]; frames from that index on are padding and must not count. None: none is.

        Returns:
            embeddings [B, D], and tokens [B, L, D'], whatever finer features of a clip the model has.
        """
        ...

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """int64 [M, L], on the CPU, as the encoder's `tokenize` gave them -> embeddings [M, D]."""
        ...


@dataclass(frozen=True)
class Encoder:
    """A model that videos and texts are embedded with, and what their files go through on the way to it.

    tokenize: M texts -> int64 ids [M, L].
    clip_transform: frames uint8 [T, 3, H, W] of a data set's video -> uint8 [T, 3, S, S'], of one size for
        all videos. It runs in worker processes and must be picklable.
    feature_transform: the same for feature extraction; TVTSv2's official one differs.
    num_frames: of a clip, unless a config says otherwise; `more_frames`: whether it may have more.
    head: the classification head that it was fine-tuned with, for embeddings on the CPU.
    arch: its name, in tables and folders.
    path, sha256: of its weights. Embeddings are kept, and known again, by arch and sha256: an encoder that
        changes its vectors needs another.
    """

    model: VideoTextModel
    tokenize: Callable[[list[str]], Tensor]
    clip_transform: Transform
    feature_transform: Transform
    num_frames: int
    arch: str
    path: Path
    sha256: str
    more_frames: bool = False
    head: ClassHead | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What says in a table of features which model made them."""
        return {"arch": self.arch, "checkpoint_sha256": self.sha256}


class ModelName(NamedTuple):
    """An encoder to load: one of VARIANTS or open_clip:NAME, and its weights; None is the released file."""

    arch: str
    checkpoint: str | None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """ "TVTSv2_B_16", "TVTSv2_B_16:FILE" or "open_clip:ViT-B-32:FILE"."""
        family = OPEN_CLIP if text.startswith(OPEN_CLIP) else ""
        name, _, file = text.removeprefix(family).partition(":")
        return cls(family + name, file or None)


def folder_name(name: str) -> str:
    """An encoder's name as that of a folder, without the : and / of open_clip's."""
    return re.sub(r"[^\w.+-]", "_", name)


def load_encoder(arch: str, checkpoint: str | None, context: DistContext) -> Encoder:
    """Load a TVTSv2, or a CLIP of open_clip, and move it to the context's device.

    A TVTSv2 takes clips of as many frames as its weights (default: the released file) were trained with.

    Raises:
        FileNotFoundError, ValueError: there is no such model, there are no such weights, or they do not fit;
            see `find_checkpoint`, `load_checkpoint` and `open_clip_encoder.load_open_clip`.
    """
    if arch.startswith(OPEN_CLIP):
        from downstream.embedding.open_clip_encoder import load_open_clip  # its import takes seconds

        return load_open_clip(arch, checkpoint, context)
    path = find_checkpoint(checkpoint, arch)
    state = read_state_dict(path)
    frames = state.get("video_model.temporal_embedding")
    num_frames = len(frames) if frames is not None and frames.ndim == 2 and len(frames) else None
    with WithoutValues():
        model = create_model(arch, sort_head=False, num_frames=num_frames)
    load_state(model, state, path)
    return Encoder(
        model.to(context.device).eval(),
        tokenize,
        clip_transform("test", model.image_size),
        feature_transform(model.image_size),
        model.variant.num_frames,
        arch,
        path,
        weights_hash(path, context),
        head=head_of(state),
    )


def weights_hash(path: Path, context: DistContext) -> str:
    """The SHA-256 of a weights file, or folder, on every process; the first one reads it."""
    return context.broadcast_object(sha256_of(path) if context.is_main else None)


def find_checkpoint(checkpoint: str | None, arch: str) -> Path:
    """The weights to load: a file, or the folder of a distributed training checkpoint.

    Raises:
        ValueError: an unknown model.
        FileNotFoundError: there is no such file; says where it goes and where it comes from.
    """
    if arch not in VARIANTS:
        raise ValueError(
            f"unknown model --arch {arch}; {nearest_key(arch, VARIANTS)} Others' are named {OPEN_CLIP}NAME"
        )
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
        f"The released weights of {arch} belong at {released.absolute()}; fetch them with: "
        f"python -m model.download {arch}\n"
        "Or name another file with --checkpoint FILE."
    )
