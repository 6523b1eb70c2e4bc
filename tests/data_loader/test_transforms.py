"""Pixels: bit-identical to the official transforms, on uint8."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.transforms import (
    IMAGE_MEAN,
    IMAGE_STD,
    clip_transform,
    feature_transform,
    nearest_index,
    normalize,
    pad_clip,
    resized_shape,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "data.json").read_text())


def pattern(height, width, num_frames):
    t, y, x, c = np.ogrid[:num_frames, :height, :width, :3]
    frames = ((7 * x + 3 * y + 11 * t + 50 * c) % 256).astype(np.uint8)
    return torch.from_numpy(frames).permute(0, 3, 1, 2)  # as readers give them: channels last in memory


def size_of(row):
    return f"{row['h']}x{row['w']}"


@pytest.mark.parametrize("row", GOLDEN["eval_transform"], ids=size_of)
@pytest.mark.parametrize("split", ["val", "test"])
def test_official_pixels(row, split):
    clip = clip_transform(split)(pattern(row["h"], row["w"], 2))
    assert clip.dtype == torch.uint8 and list(clip.shape) == row["shape"] and clip.is_contiguous()
    assert hashlib.sha256(clip.numpy().tobytes()).hexdigest() == row["sha256_uint8_TCHW"]
    video = normalize(clip)
    torch.testing.assert_close(video.flatten()[:8], torch.tensor(row["first8"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(video.flatten()[-8:], torch.tensor(row["last8"]), rtol=0, atol=1e-6)
    assert video.double().mean().item() == pytest.approx(row["float_mean"], abs=1e-5)


@pytest.mark.parametrize("row", GOLDEN["feature_transform"], ids=size_of)
def test_official_feature_pixels(row):
    clip = feature_transform()(pattern(row["h"], row["w"], 1))
    assert clip.shape == (1, 3, 224, 224) and clip.dtype == torch.uint8
    video = normalize(clip)
    torch.testing.assert_close(video[0, 1, 100, ::16], torch.tensor(row["row100"]), rtol=0, atol=1e-6)
    assert video.double().mean().item() == pytest.approx(row["mean"], abs=1e-5)
    assert video.double().std().item() == pytest.approx(row["std"], abs=1e-5)


def test_nearest_index_is_that_of_pil():
    rng = np.random.default_rng(0)
    sizes = [(1, 268), (7, 268), (240, 268), (268, 268), (1080, 268), (2160, 268), (640, 476), (1920, 476)]
    for size_in, size_out in sizes + rng.integers(1, 2000, (200, 2)).tolist():
        row = Image.fromarray(np.arange(size_in, dtype=np.int32)[None])
        expected = np.asarray(row.resize((size_out, 1), Image.Resampling.NEAREST))[0]
        np.testing.assert_array_equal(nearest_index(size_in, size_out), expected)


def test_other_sizes_keep_the_rule():
    assert resized_shape(240, 320, 268) == (268, 357)
    assert resized_shape(320, 240, 268) == (357, 268)
    assert resized_shape(268, 999, 268) == (268, 999)
    frames = pattern(90, 120, 3)
    clip = clip_transform("test", 64)(frames)  # shorter side int(1.2 · 64) = 76
    assert clip.shape == (3, 3, 64, 64)
    image = Image.fromarray(frames[1].permute(1, 2, 0).numpy()).resize((101, 76), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(clip[1].permute(1, 2, 0), np.asarray(image)[6:70, 18:82])


def test_memory_layout_of_the_frames_does_not_matter():
    frames = pattern(100, 130, 2)
    assert torch.equal(clip_transform("test")(frames), clip_transform("test")(frames.contiguous()))
    assert torch.equal(feature_transform()(frames), feature_transform()(frames.contiguous()))


def test_random_crop_is_one_for_the_clip_and_reaches_the_corners():
    y, x = np.mgrid[:76, :80].astype(np.uint8)
    frame = torch.from_numpy(np.stack([y, x, 0 * x]))
    transform, rng = clip_transform("train", 64), np.random.default_rng(0)
    corners = set()
    for _ in range(1500):
        clip = transform(frame.expand(3, 3, 76, 80), rng)
        assert torch.equal(clip, clip[:1].expand_as(clip))
        assert torch.equal(
            clip[0, :, -1, -1], clip[0, :, 0, 0] + torch.tensor([63, 63, 0], dtype=torch.uint8)
        )
        corners.add(tuple(clip[0, :2, 0, 0].tolist()))
    assert corners == {(top, left) for top in range(13) for left in range(17)}
    again = [transform(frame[None], np.random.default_rng(5)) for _ in range(2)]
    assert torch.equal(*again)


def test_unknown_split():
    with pytest.raises(ValueError, match="split is 'valid'; expected train, val or test"):
        clip_transform("valid")


def test_normalize_is_the_plain_formula_for_any_shape():
    video = torch.randint(0, 256, (2, 5, 3, 8, 8), dtype=torch.uint8)
    expected = torch.stack([(video[:, :, c] / 255 - IMAGE_MEAN[c]) / IMAGE_STD[c] for c in range(3)], dim=2)
    torch.testing.assert_close(normalize(video), expected)


def test_pad_clip():
    frames = torch.full((5, 3, 4, 4), 9, dtype=torch.uint8)
    clip, valid = pad_clip(frames, 12)
    assert clip.shape == (12, 3, 4, 4) and clip.dtype == torch.uint8 and valid == 5
    assert torch.equal(clip[:5], frames) and not clip[5:].any()
    assert pad_clip(frames, 5) == (frames, 5)
    with pytest.raises(ValueError, match="a clip of 5 frames does not fit 4"):
        pad_clip(frames, 4)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (300, 300), (268, 500)])
def test_three_crops(height, width):
    """Of the frame as PIL resizes it: the ends and the middle of its longer side."""
    frames = pattern(height, width, 2)
    crops = clip_transform("test").three_crops(frames)
    assert crops.shape == (2, 3, 3, 224, 224) and crops.dtype == torch.uint8
    size = resized_shape(height, width, 268)
    for t, frame in enumerate(frames):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.NEAREST)
        spare = max(size) - 224
        for k, place in enumerate((0, round(spare / 2), spare)):
            left, top = (place, 22) if width >= height else (22, place)
            expected = np.asarray(image.crop((left, top, left + 224, top + 224)))
            np.testing.assert_array_equal(crops[t, k].permute(1, 2, 0), expected)
    torch.testing.assert_close(crops[:, 1], clip_transform("test")(frames), rtol=0, atol=0)
