"""What is searched for: texts, images, videos, rows of the table, or a weighted sum of them, as vectors."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from downstream.embedding.clips import Clip, ClipDataset
from downstream.embedding.embedder import Embedder
from downstream.embedding.encoder import Encoder, load_encoder
from downstream.features import READ_TIMEOUT
from downstream.inputs.pieces import Cutting
from downstream.options import join_processes
from downstream.vector_search.index import unit
from downstream.vector_search.videos import VideoIndex
from model.metric import check_finite


@dataclass(frozen=True)
class Query:
    """What was asked for, in words; its vector float32 [D]; the rows of the table that it was made of."""

    text: str
    vector: np.ndarray
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class QueryModel:
    """The model that made the features, what embeds queries with it, and how it sees a video."""

    encoder: Encoder
    embedder: Embedder
    cutting: Cutting


def load_query_model(checkpoint: str | None, metadata: dict[str, Any], device: str | None) -> QueryModel:
    """The model that made the features, to embed queries with.

    Raises:
        FileNotFoundError: no such weights. ValueError: other weights than those of the features, or they do
            not say theirs.
    """
    if not {"arch", "checkpoint_sha256"} <= metadata.keys():
        raise ValueError("the features do not say which model made them: give --row, or extract them anew")
    context = join_processes(device)
    encoder = load_encoder(metadata["arch"], checkpoint, context)
    if encoder.sha256 != metadata["checkpoint_sha256"]:
        raise ValueError(
            f"the features were made with other weights than {encoder.path} (SHA-256 "
            f"{metadata['checkpoint_sha256'][:12]}…, not {encoder.sha256[:12]}…); "
            "name the file that made them with --checkpoint, or extract the features anew"
        )
    embedder = Embedder(encoder.model, encoder.tokenize, context)
    embedder.encode_texts([""])  # the first pass sets much up; a person should not wait for it
    num_frames = metadata.get("num_frames", encoder.num_frames)
    return QueryModel(encoder, embedder, Cutting(num_frames, timeout=READ_TIMEOUT))


class QueryMaker:
    """Makes queries for an index. `load` gives the model, which rows of the table do without."""

    def __init__(self, index: VideoIndex, load: Callable[[], QueryModel]):
        self.index = index
        self.load = load

    @cached_property
    def model(self) -> QueryModel:
        return self.load()

    def text(self, text: str) -> Query:
        return Query(text, self.model.embedder.encode_texts([text])[0].numpy())

    def image(self, path: str | Path) -> Query:
        """A picture, as a clip of one frame. Raises FileNotFoundError, ValueError: it cannot be read."""
        frames = read_image(path)[None]
        return Query(f"image {path}", self._embed(path, self.model.encoder.feature_transform(frames)))

    def video(self, path: str | Path) -> Query:
        """A whole video, as feature_extraction.py embeds it. Raises ValueError: it cannot be read."""
        model, clip = self.model, Clip.of_file(os.path.expanduser(path))
        (item,) = ClipDataset([clip], [0], model.cutting, model.encoder.feature_transform)[0]
        if "missing" in item:
            raise ValueError(f"{path}: {item['missing'].reason}; name another video")
        return Query(f"near {path}", self._embed(path, item["video"]))

    def row(self, row: int) -> Query:
        """A row of the table. Raises ValueError: there is no such row."""
        return Query(f"row {row}: {self.index.hit(row, math.nan).name}", self.index.vector(row), (row,))

    def _embed(self, path: str | Path, video: torch.Tensor) -> np.ndarray:
        """video uint8 [T, 3, S, S] -> [D]."""
        ((embeds, _),) = self.model.embedder.encode_clips(video[None])
        check_finite(embeds, [path])
        return embeds[0].numpy()


def read_image(path: str | Path) -> torch.Tensor:
    """A picture, turned as its EXIF data say, uint8 [3, H, W].

    Raises:
        FileNotFoundError: no such file. ValueError: it holds no picture, or one of too many pixels.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no image file {path}")
    try:
        with Image.open(file) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); a video goes to --near") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def together(queries: Sequence[Query], weights: Sequence[float]) -> Query:
    """One query: the sum of the directions of all, each times its weight, which may be negative.

    No weights: all the same. Raises ValueError: more or fewer than queries, not finite, or a sum of nothing.
    """
    weights = list(weights) or [1.0] * len(queries)
    texts = [query.text for query in queries]
    if len(weights) != len(queries):
        raise ValueError(
            f"--together has {len(weights)} weights for {len(queries)} queries, which are, in this order: "
            f"{'; '.join(texts)}"
        )
    if not np.isfinite(weights).all():
        raise ValueError(f"the weights {weights} of --together must be finite numbers")
    total = (
        np.asarray(weights, dtype=np.float32) @ unit(np.stack([query.vector for query in queries])).numpy()
    )
    if not np.linalg.norm(total) > 1e-4 * np.abs(weights).sum():
        raise ValueError("the queries of --together cancel each other out; choose other weights")
    text = " ".join(f"{weight:+g}·({text})" for weight, text in zip(weights, texts, strict=True))
    return Query(text, total, tuple(row for query in queries for row in query.rows))
