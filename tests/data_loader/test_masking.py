"""Tube masks: size, order and chance."""

import numpy as np
import pytest
import torch

from data_loader.masking import tube_mask


@pytest.mark.parametrize("patches, ratio, kept", [(49, 0, 49), (196, 0.5, 98), (256, 0.7, 76), (16, 0.5, 8)])
def test_sizes_of_the_variants(patches, ratio, kept):
    keep = tube_mask(patches, ratio, np.random.default_rng(0))
    assert keep.dtype == torch.int64 and keep.shape == (kept,)
    assert len(set(keep.tolist())) == kept and keep.min() >= 0 and keep.max() < patches


def test_order_is_as_drawn_and_repeats_with_the_seed():
    first, second = (tube_mask(196, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.tolist() != sorted(first.tolist())
    assert not torch.equal(tube_mask(196, 0.5), tube_mask(196, 0.5))


def test_every_patch_is_kept_equally_often():
    rng = np.random.default_rng(0)
    counts = sum(np.bincount(tube_mask(49, 0.5, rng), minlength=49) for _ in range(2000))
    assert abs(counts / 2000 - 24 / 49).max() < 0.06


@pytest.mark.parametrize("ratio", [1.0, -0.1, 0.999])
def test_a_mask_that_keeps_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match=f"mask ratio {ratio} keeps none of 49 patches"):
        tube_mask(49, ratio)
