"""Resizing on the device: PIL's bits, at any size, in the shape that workers hand over."""

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader import resize
from data_loader.resize import DeferredResize, pil_order, resample, resample_both
from data_loader.transforms import feature_transform

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
ODD = [
    (256, 340), (340, 256), (240, 320), (223, 225), (224, 300), (300, 224), (1, 1), (1, 9), (9, 1),
    (3, 500), (500, 3), (1000, 8), (8, 1000), (720, 1280), (448, 448), (2, 2), (97, 101), (255, 257),
]  # fmt: skip


def clips(height, width, kind, frames=2):
    """Channels last in memory, as readers give them."""
    rng = np.random.default_rng([height, width])
    pixels = rng.integers(0, 256, (1, frames, height, width, 3), dtype=np.uint8)
    if kind == "black and white":  # the most that a sum can be
        pixels = (pixels > 127).astype(np.uint8) * 255
    return torch.from_numpy(pixels).movedim(-1, 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["noise", "black and white"])
def test_pixels_are_those_of_pil(device, kind, monkeypatch):
    transform = feature_transform(224)
    deferred = DeferredResize(transform)
    sizes = [*ODD, *np.random.default_rng(3).integers(1, 400, (12, 2)).tolist()]
    for height, width in sizes:
        assert pil_order(height, width, 224), (height, width)
        video = clips(height, width, kind)
        result = deferred.finish(video.to(device))
        assert result.device.type == device and result.dtype == torch.uint8
        assert torch.equal(result[0].cpu(), transform(video[0])), (height, width)


@pytest.mark.parametrize("size", [1, 17, 96, 257])
def test_other_sizes(size):
    transform = feature_transform(size)
    for height, width in [(60, 81), (81, 60), (33, size), (400, 7), (7, 400)]:
        video = clips(height, width, "noise")
        assert torch.equal(DeferredResize(transform).finish(video)[0], transform(video[0])), (height, width)


def test_the_order_of_the_axes_is_told_apart():
    """It counts: in each of these sizes both orders give different pixels, of which PIL's are one."""
    for height, width in [(256, 340), (340, 256)]:
        pixels = torch.from_numpy(
            np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
        )
        expected = np.asarray(Image.fromarray(pixels.numpy()).resize((224, 224), Image.Resampling.BILINEAR))
        order = pil_order(height, width, 224)
        assert np.array_equal(resample_both(pixels, 224, order), expected)
        assert not np.array_equal(resample_both(pixels, 224, order[::-1]), expected)


def test_a_pil_that_computes_otherwise_is_used_itself(monkeypatch):
    monkeypatch.setattr(resize, "pil_order", lambda *_: None)
    video = clips(60, 81, "noise")
    transform = feature_transform(224)
    assert torch.equal(DeferredResize(transform).finish(video)[0], transform(video[0]))


def test_large_frames_are_resized_before_they_are_handed_over():
    deferred = DeferredResize(feature_transform(224))
    small, large = clips(256, 455, "noise")[0], clips(360, 640, "noise")[0]
    assert deferred(small) is small
    assert deferred(large).shape == (2, 3, 224, 224)
    assert torch.equal(deferred.finish(deferred(large)[None])[0], feature_transform(224)(large))


def test_nothing_to_do():
    pixels = torch.arange(12, dtype=torch.uint8).view(2, 2, 3)
    assert resample(pixels, 0, 2) is pixels
