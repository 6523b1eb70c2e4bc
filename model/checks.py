"""What the towers accept, said in a ValueError when it is not what they were given; and weights in numbers.

Values that live on a GPU are not read back to be checked, as that would stall it: pass `keep_ind` and token
ids from the CPU (the model moves them) to have them checked. On a GPU the lookup itself asserts their range.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .variants import Variant


class CheckpointError(ValueError):
    """A weights file that cannot be read, or does not belong to the model."""


def check_video(video: Tensor, variant: Variant) -> None:
    """video [B, T, 3, S, S], 1 <= T <= num_frames, floating point or uint8."""
    S = variant.image_size
    if video.ndim != 5 or video.shape[2:] != (3, S, S):
        raise ValueError(
            f"{variant.name} takes videos [B, T, 3, {S}, {S}] or images [B, 3, {S}, {S}]; "
            f"got shape {list(video.shape)} (after taking an image for a clip of one frame)"
        )
    if not 1 <= video.shape[1] <= variant.num_frames:
        raise ValueError(
            f"this {variant.name} takes 1 to {variant.num_frames} frames a clip, got {video.shape[1]}; "
            f"choose fewer frames, or build the model with a larger num_frames"
        )
    if video.dtype != torch.uint8 and not video.is_floating_point():
        raise ValueError(f"video must be float (normalised) or uint8 (raw pixels), got {video.dtype}")


def check_keep_ind(keep_ind: Tensor, batch: int, num_patches: int) -> None:
    """keep_ind [B, n] integers in 0 .. num_patches - 1, n at least 1."""
    if keep_ind.ndim != 2 or keep_ind.shape[0] != batch or keep_ind.shape[1] < 1:
        raise ValueError(f"keep_ind must be [{batch}, n], n at least 1; got shape {list(keep_ind.shape)}")
    _check_integers("keep_ind", keep_ind)
    _check_range("keep_ind", keep_ind, num_patches)


def check_valid_frames(valid_frames: Tensor, batch: int) -> None:
    """valid_frames [B] integers."""
    if valid_frames.shape != (batch,):
        raise ValueError(
            f"valid_frames must be [{batch}], one count a clip; got shape {list(valid_frames.shape)}"
        )
    _check_integers("valid_frames", valid_frames)


def check_token_ids(token_ids: Tensor, variant: Variant) -> None:
    """token_ids [M, L] integers in 0 .. vocab_size - 1, L at most context_length."""
    if token_ids.ndim != 2 or not 1 <= token_ids.shape[1] <= variant.context_length:
        raise ValueError(
            f"token ids must be [texts, 1 to {variant.context_length}], as `tokenize` gives them; "
            f"got shape {list(token_ids.shape)}"
        )
    _check_integers("token ids", token_ids)
    _check_range("token ids", token_ids, variant.vocab_size)


def _check_integers(name: str, values: Tensor) -> None:
    if values.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be int64 (or int32), got {values.dtype}")


def _check_range(name: str, values: Tensor, end: int) -> None:
    if values.device.type != "cpu" or torch.compiler.is_compiling() or not values.numel():
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= end:
        raise ValueError(f"{name} must lie in 0..{end - 1}, got {low}..{high}")


def check_weights(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises CheckpointError, which names the first tensor that holds NaN or infinity: NaN compares as false,
    and an evaluation that counts who is better would find it best of all."""
    # A finite sum says it of all numbers in it, in a fifth of the time; one that is not may have overflowed.
    suspects = [name for name, value in state.items() if not value.sum().isfinite()]
    bad = [name for name in suspects if not state[name].isfinite().all()]
    if bad:
        value = state[bad[0]]
        others = f", and so do {len(bad) - 1} more of its {len(state)} tensors" if len(bad) > 1 else ""
        raise CheckpointError(
            f"{path}: {bad[0]} holds NaN or infinity ({int((~value.isfinite()).sum())} of {value.numel()} "
            f"numbers){others}. The training that wrote it diverged, or the file is damaged: take an earlier "
            "checkpoint, or get the file again"
        )
