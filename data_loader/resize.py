"""PIL's bilinear resize of 8-bit frames on any device, to the bit; the feature transform that uses it.

PIL works in whole numbers: weights of 22 bits, one axis after the other, rounded to 8 bits in between. Which
axis comes first changes some pixels by 1, and depends on the size and on PIL's version; so PIL itself is
asked, once a size.
"""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from data_loader.transforms import FeatureTransform

WEIGHT_BITS = 22
LARGEST = 2.5  # results a frame may be as large as to be handed over as it is; 16:9 with 256 lines is 2.3


@lru_cache(maxsize=256)
def bilinear_weights(size_in: int, size_out: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels along an axis that each pixel of the result is made of, int64 [taps, size_out], and their
    weights, int32 of the same shape, those of a pixel adding up to 2**22 but for rounding.

    In float64, in PIL's order: a triangle as wide as two pixels of the coarser side, cut off at the border.
    """
    scale = size_in / size_out
    support = max(scale, 1.0)
    centre = (np.arange(size_out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), size_in)
    source = first + np.arange((end - first).max())[:, None]
    weights = np.maximum(1 - abs((source - centre + 0.5) * (1 / support)), 0)
    weights[source >= end] = 0
    weights *= 1 / weights.cumsum(0)[-1]
    whole = (0.5 + weights * 2**WEIGHT_BITS).astype(np.int32)
    return torch.from_numpy(np.minimum(source, size_in - 1)).to(device), torch.from_numpy(whole).to(device)


def resample(pixels: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """uint8 with another size along one axis. As no weight is negative, sums stay below 2**31, results below
    256."""
    if pixels.shape[axis] == size:
        return pixels
    shape = [*pixels.shape]
    shape[axis] = size
    total = torch.full(shape, 2 ** (WEIGHT_BITS - 1), dtype=torch.int32, device=pixels.device)
    along = [size if i == axis % pixels.dim() else 1 for i in range(pixels.dim())]
    for source, weight in zip(*bilinear_weights(pixels.shape[axis], size, pixels.device), strict=True):
        total.addcmul_(pixels.index_select(axis, source).int(), weight.view(along))
    return (total >> WEIGHT_BITS).to(torch.uint8)


def resample_both(pixels: torch.Tensor, size: int, order: tuple[int, int]) -> torch.Tensor:
    """uint8 [..., H, W, C] -> [..., size, size, C], first along the axis `order` names first."""
    for axis in order:
        pixels = resample(pixels, axis, size)
    return pixels


@lru_cache(maxsize=4096)
def pil_order(height: int, width: int, size: int) -> tuple[int, int] | None:
    """The axes of [H, W, C] in the order in which PIL resizes frames of this size; None where it gives what
    neither order does."""
    probe = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(probe).resize((size, size), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(probe)[..., None]
    for order in ((-2, -3), (-3, -2)):
        if np.array_equal(resample_both(pixels, size, order)[..., 0], expected):
            return order
    return None


class DeferredResize:
    """A FeatureTransform in two steps: workers hand frames over as they are, and `finish` resizes them on the
    model's device, to the same bits. Frames that would be much to hand over, workers resize."""

    def __init__(self, whole: FeatureTransform):
        self.whole, self.size = whole, whole.size

    def __call__(self, frames: torch.Tensor, rng: np.random.Generator | None = None) -> torch.Tensor:
        """frames uint8 [T, 3, H, W] -> the same, or [T, 3, size, size]."""
        height, width = frames.shape[-2:]
        return self.whole(frames) if height * width > LARGEST * self.size**2 else frames

    def finish(self, video: torch.Tensor) -> torch.Tensor:
        """uint8 [B, T, 3, H, W] on any device -> [B, T, 3, size, size] there."""
        height, width = video.shape[-2:]
        if (height, width) == (self.size, self.size):
            return video
        order = pil_order(height, width, self.size)
        if order is None:
            clips = [self.whole(clip) for clip in video.cpu()]
            return torch.stack(clips).to(video.device)
        pixels = video.movedim(2, -1)  # how decoders give them, and how they lie in memory
        return resample_both(pixels, self.size, order).movedim(-1, 2)
