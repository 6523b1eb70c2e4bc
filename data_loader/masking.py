"""Tube masking: the same patches are hidden in every frame of a clip."""

import numpy as np
import torch


def tube_mask(num_patches: int, ratio: float, rng: np.random.Generator | None = None) -> torch.Tensor:
    """The patches a masked clip keeps, int64 [n] with n = int(num_patches·(1 − ratio)), in the order drawn.

    num_patches: patches of one frame. ratio: share of them hidden, in [0, 1).
    rng: None draws from a fresh generator.
    """
    keep = int(num_patches * (1 - ratio))
    if not 0 <= ratio < 1 or keep < 1:
        raise ValueError(f"mask ratio {ratio} keeps none of {num_patches} patches; it must lie in [0, 1)")
    rng = np.random.default_rng() if rng is None else rng
    return torch.from_numpy(rng.permutation(num_patches)[:keep])
