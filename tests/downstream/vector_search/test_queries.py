"""Images and videos as queries."""

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.transforms import feature_transform
from downstream.feature_files import FeatureTable
from downstream.vector_search.queries import QueryMaker, load_query_model, read_image
from downstream.vector_search.videos import VideoIndex
from utils.files import sha256_of

from ..layouts import write_video


@pytest.fixture
def maker(checkpoint, model) -> QueryMaker:
    features = np.eye(3, model.variant.embed_dim, dtype=np.float32)
    index = VideoIndex.of_table(FeatureTable(features, {"path": ["a", "b", "c"]}, {}))
    metadata = {"arch": "TVTSv2_Demo", "checkpoint_sha256": sha256_of(checkpoint)}
    return QueryMaker(index, lambda: load_query_model(str(checkpoint), metadata, "cpu"))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_an_image_is_a_clip_of_one_frame(maker, model, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    frames = torch.from_numpy(picture()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model.encode_video(feature_transform(model.image_size)(frames)[None])[0][0].numpy()
    query = maker.image(tmp_path / "a.png")
    np.testing.assert_allclose(query.vector, expected, rtol=1e-4, atol=1e-5)
    assert query.text == f"image {tmp_path / 'a.png'}" and query.rows == ()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_images_of_any_kind(mode, tmp_path):
    image = Image.fromarray(picture())
    image = Image.fromarray(picture()[..., 0].astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff").shape == (3, 60, 80)


def test_a_photograph_is_turned_as_it_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to be upright
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0), np.rot90(picture(), -1))


def test_files_that_are_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file .*gone\.png"):
        read_image(tmp_path / "gone.png")
    for name, content in {"empty": b"", "text": b"a dog", "cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image .*--near"):
            read_image(tmp_path / name)
    with pytest.raises(ValueError, match="--near"):
        read_image(write_video(tmp_path / "a.mp4", seed=0))


def test_an_image_of_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # more than twice as many are an error
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="decompression bomb"):
        read_image(tmp_path / "a.png")


def test_a_video_that_cannot_be_read(maker, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a\.mp4: .*; name another video"):
        maker.video(tmp_path / "a.mp4")
