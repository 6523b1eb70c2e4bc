"""From decoded frames to model input, on uint8: a worker hands over bytes, the device normalises them."""

from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from PIL import Image

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class Transform(Protocol):
    """Frames uint8 [T, 3, H, W] -> uint8 [T, 3, S, S'] for the model; what is random comes from `rng`."""

    def __call__(self, frames: torch.Tensor, rng: np.random.Generator | None = None) -> torch.Tensor: ...


@runtime_checkable
class CroppingTransform(Transform, Protocol):
    """A transform that ends in a crop, and so can cut three along the longer side."""

    def three_crops(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 [T, 3, H, W] -> uint8 [T, 3 crops, 3, S, S']: left, centre and right of the resized
        frame, or of a portrait top, centre and bottom. The centre is what the transform itself gives."""
        ...


@lru_cache(maxsize=256)
def nearest_index(size_in: int, size_out: int) -> np.ndarray:
    """Source index of each output pixel along one axis, int64 [size_out], bit-identical to PIL's NEAREST.

    PIL adds up the scale in float64 from one pixel to the next. The closed form (i + 0.5)·scale rounds
    differently at every other size, and so do PyTorch's interpolation modes.
    """
    steps = np.full(size_out, size_in / size_out)
    steps[0] *= 0.5
    return np.cumsum(steps).astype(np.int64)


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after the shorter side has become `short_side`, the aspect ratio kept."""
    if min(height, width) == short_side:
        return height, width
    if width >= height:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


class ClipTransform:
    """NEAREST resize of the shorter side to int(1.2·size), then one square crop for the whole clip.

    Resize, crop and bringing the colours to the front are one gather, so that only the pixels of the result
    are touched; videos whose shorter side is right already are only cropped. NumPy does it on one core in
    half the time of PyTorch.
    """

    def __init__(self, size: int, random_crop: bool):
        self.size = size
        self.short_side = int(1.2 * size)
        self.random_crop = random_crop

    def __call__(self, frames: torch.Tensor, rng: np.random.Generator | None = None) -> torch.Tensor:
        """frames uint8 [T, 3, H, W] -> uint8 [T, 3, size, size], contiguous. rng places a random crop."""
        _, _, H, W = frames.shape
        height, width = resized_shape(H, W, self.short_side)
        return self._cut(frames, *self._corner(height - self.size, width - self.size, rng))

    def three_crops(self, frames: torch.Tensor) -> torch.Tensor:
        """As CroppingTransform has it."""
        _, _, H, W = frames.shape
        height, width = resized_shape(H, W, self.short_side)
        corners = three_corners(height - self.size, width - self.size)
        return torch.stack([self._cut(frames, *corner) for corner in corners], dim=1)

    def _cut(self, frames: torch.Tensor, top: int, left: int) -> torch.Tensor:
        """Resized frames, and of them the square whose corner is there."""
        _, C, H, W = frames.shape
        height, width = resized_shape(H, W, self.short_side)
        pixels = rearrange(frames.numpy(), "t c h w -> t h w c")  # how decoders give them
        if (height, width) == (H, W):
            return channels_first(pixels[:, top : top + self.size, left : left + self.size])
        rows = nearest_index(H, height)[top : top + self.size]
        cols = nearest_index(W, width)[left : left + self.size]
        source = (rows[:, None] * W + cols) * C + np.arange(C)[:, None, None]  # [3, size, size] in a frame
        # mode "clip" skips a check of each index; none is outside
        return torch.from_numpy(rearrange(pixels, "t h w c -> t (h w c)").take(source, axis=1, mode="clip"))

    def _corner(
        self, spare_height: int, spare_width: int, rng: np.random.Generator | None
    ) -> tuple[int, int]:
        if self.random_crop:
            rng = np.random.default_rng() if rng is None else rng
            return int(rng.integers(spare_height + 1)), int(rng.integers(spare_width + 1))
        return three_corners(spare_height, spare_width)[1]


def three_corners(spare_height: int, spare_width: int) -> list[tuple[int, int]]:
    """(top, left) of three crops of a frame that is larger by so much, the centre the second of them."""
    top, left = round(spare_height / 2), round(spare_width / 2)
    if spare_width >= spare_height:
        return [(top, 0), (top, left), (top, spare_width)]
    return [(0, left), (top, left), (spare_height, left)]


class FeatureTransform:
    """Each frame squashed to size × size by PIL's bilinear filter, as in the official feature extraction."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, frames: torch.Tensor, rng: np.random.Generator | None = None) -> torch.Tensor:
        """frames uint8 [T, 3, H, W] -> uint8 [T, 3, size, size]. Nothing is random; rng is not used."""
        shape = (self.size, self.size)
        pixels = rearrange(frames.numpy(), "t c h w -> t h w c")
        squashed = np.empty((len(pixels), 3, *shape), np.uint8)
        for frame, target in zip(pixels, squashed, strict=True):
            image = Image.fromarray(frame).resize(shape, Image.Resampling.BILINEAR)
            target[:] = rearrange(np.asarray(image), "h w c -> c h w")
        return torch.from_numpy(squashed)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [T, H, W, 3] -> [T, 3, H, W], contiguous, and never a view."""
    return torch.from_numpy(rearrange(pixels, "t h w c -> t c h w").copy())


def clip_transform(split: str, size: int = 224) -> ClipTransform:
    """The data sets' transform: random crop for split "train", centre crop for "val" and "test"."""
    if split not in ("train", "val", "test"):
        raise ValueError(f"split is {split!r}; expected train, val or test")
    return ClipTransform(size, random_crop=split == "train")


def feature_transform(size: int = 224) -> FeatureTransform:
    """The transform of feature extraction, which differs from that of the data sets."""
    return FeatureTransform(size)


def normalize(video: torch.Tensor) -> torch.Tensor:
    """uint8 [..., 3, H, W] -> float32 of the same shape: /255, less the ImageNet mean, over its deviation."""
    mean = torch.tensor(IMAGE_MEAN, device=video.device).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=video.device).view(3, 1, 1)
    return video.float().div(255).sub(mean).div(std)


def pad_clip(frames: torch.Tensor, num_frames: int) -> tuple[torch.Tensor, int]:
    """A clip of `num_frames` frames, the missing ones black, and how many of them are real.

    The model sets the frames beyond that number to zero after normalising, where the official release
    has its zeros (black pixels are not zero there).
    """
    valid = frames.shape[0]
    if valid > num_frames:
        raise ValueError(f"a clip of {valid} frames does not fit {num_frames}")
    if valid == num_frames:
        return frames, valid
    padding = frames.new_zeros((num_frames - valid, *frames.shape[1:]))
    return torch.cat([frames, padding]), valid
