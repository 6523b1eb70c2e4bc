"""The vectors of a feature file, ready to be searched: kept beside it, mapped into memory instead of read.

FILE.index is a .safetensors file. Its vectors lie list by list, each list a neighbourhood (an inverted
file, as in faiss). A query looks through the most promising lists until it has seen SCANNED vectors; up to so
many there is a single list, and the search is exact.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from downstream.embedding.embedder import warn_if_alike
from downstream.feature_files import FeatureTable, load_features
from downstream.vector_search.columns import TextColumn, column_in, column_of
from utils.errors import RunError
from utils.files import or_warn, sha256_of, whole_file

SCANNED = 150_000  # vectors that a query is compared with, at least, where there are more
SAMPLE = 64  # vectors a list, of which k-means makes them
SPREAD = 0.3  # how far from a list's mean its nearest vector lies, as a share of the list's spread
BLOCK = 2**14  # vectors normalised at once, so that they are not held twice
PIECE = 512  # vectors in float32 at once: few enough to stay in a processor's cache
LAYOUT = 2  # of the file; another one is built anew


class StaleIndexError(ValueError):
    """The file is no index of these features; it is to be built anew."""


class FeatureIndex:
    """The vectors of a feature file with their columns, searched by cosine.

    vectors: float16 [N, D], of length 1 (cosines differ by about 2e-5 from float32's), list by list.
    rows: int64 [N], which row of the table each is; positions: int64 [N], where the vector of each row is.
    means: float32 [L, D], of the lists; offsets: int64 [L + 1], where they begin.
    columns: by name, in the table's order. metadata: that of the "features", and the "size" and "sha256" of
        their file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]):
        self.tensors, self.metadata = tensors, metadata
        self.vectors, self.means = tensors["vectors"], tensors["means"]
        self.rows, self.offsets = tensors["rows"].numpy(), tensors["offsets"].numpy()
        self.columns = {name: column_in(kind, name, tensors) for name, kind in metadata["columns"].items()}
        self.paths = TextColumn.of_tensors("path", tensors)
        self._check()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def _check(self) -> None:
        """Find the rows' `positions`. Raises StaleIndexError: something would lead outside."""
        (N, D), offsets = self.vectors.shape, self.offsets
        self.positions = np.full(N, -1)
        fits = (
            (self.vectors.dtype, self.means.dtype) == (torch.float16, torch.float32)
            and self.rows.dtype == offsets.dtype == np.int64
            and self.rows.shape == (N,)
            and (N == 0 or 0 <= self.rows.min() <= self.rows.max() < N)
            and offsets.ndim == 1
            and self.means.shape == (len(offsets) - 1, D)
            and (offsets[0], offsets[-1]) == (0, N)
            and (np.diff(offsets) >= 0).all()
            and self.columns.keys() >= {"path"}
            and all(len(column) == N for column in self.columns.values())
        )
        if fits:
            self.positions[self.rows] = np.arange(N)
        if not fits or (self.positions < 0).any():
            raise StaleIndexError("its lists, rows or columns do not fit together")

    @classmethod
    def build(cls, table: FeatureTable, metadata: Mapping[str, Any]) -> "FeatureIndex":
        """Of a table's vectors in the lists of `find_lists`, and of its columns of one value a row."""
        N, D = table.features.shape
        means, lists = find_lists(table.features)
        rows = np.argsort(lists, kind="stable")
        vectors = torch.empty(N, D, dtype=torch.float16)
        for first in range(0, N, BLOCK):
            vectors[first : first + BLOCK] = unit(table.features[rows[first : first + BLOCK]])
        offsets = np.concatenate([[0], np.bincount(lists, minlength=len(means)).cumsum()])
        tensors = {
            "vectors": vectors,
            "means": means,
            "rows": torch.from_numpy(rows),
            "offsets": torch.from_numpy(offsets),
        }
        kinds = {}
        for name, values in table.columns.items():
            if isinstance(values, list) or values.ndim == 1:  # np.ndim would make an array of the texts
                column = column_of(values)
                kinds[name] = column.kind
                tensors |= column.tensors(name)
        return cls(tensors, {"columns": kinds, "features": table.metadata, **metadata})

    @classmethod
    def open(cls, path: Path) -> "FeatureIndex":
        """Map a file that `save` wrote. Raises StaleIndexError: it holds something else."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})["metadata"])
                if metadata["layout"] != LAYOUT:
                    raise StaleIndexError(f"it has the layout {metadata['layout']}, not {LAYOUT}")
                return cls({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118
        except (
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            OSError,
            SafetensorError,
        ) as error:
            raise StaleIndexError(f"it cannot be read ({error})") from error

    def save(self, path: Path, like: Path) -> None:
        """Write it in one step, to be read by whoever may read `like`. Raises WriteError."""
        with whole_file(path) as unfinished:
            try:
                save_file(
                    dict(self.tensors),
                    unfinished,
                    {"metadata": json.dumps({**self.metadata, "layout": LAYOUT})},
                )
            except SafetensorError as error:  # a full disk
                raise OSError(str(error)) from error
            unfinished.chmod(like.stat().st_mode & 0o666)  # of a folder, too

    def vector(self, row: int) -> np.ndarray:
        """That of a row of the table, float32 [D], of length 1."""
        return self.vectors[int(self.positions[row])].float().numpy()

    def nearest(
        self, query: np.ndarray, top: int, one_per_video: bool = False, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows nearest to a query [D] of length 1, and their cosines, nearest first.

        one_per_video: only the nearest of each. allowed: bool [N], which rows of the table count.
        """
        number = max(SCANNED, top)
        every = len(self) if allowed is None else int(allowed.sum())
        while True:
            rows, cosines = self.scan(query, number, allowed)
            if not one_per_video:
                best = torch.from_numpy(cosines).topk(min(top, len(cosines))).indices.numpy()
                return rows[best], cosines[best]
            order = np.argsort(-cosines, kind="stable")
            _, first = np.unique(self.paths.codes[rows[order]], return_index=True)
            if len(first) >= top or len(rows) >= every:
                best = order[np.sort(first)[:top]]
                return rows[best], cosines[best]
            number *= 4  # how many rows the first `top` videos take up shows only afterwards

    def scan(
        self, query: np.ndarray, number: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the best lists, as many as hold `number` of those allowed, and their cosines."""
        asked = torch.from_numpy(query)
        sizes = np.diff(self.offsets)
        counting = None if allowed is None else allowed[self.rows]
        if counting is not None:
            before = np.concatenate([[0], np.cumsum(counting)])
            sizes = before[self.offsets[1:]] - before[self.offsets[:-1]]
        spread = (1 - self.means.square().sum(1)).clamp(min=0).sqrt()  # of a list around its mean
        order = np.argsort(-(self.means @ asked + SPREAD * spread).numpy(), kind="stable")
        lists = order[: np.searchsorted(np.cumsum(sizes[order]), number) + 1]
        positions = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in lists])
        if counting is not None:
            positions = positions[counting[positions]]
        pieces = torch.from_numpy(positions).split(PIECE)
        cosines = torch.cat([self.vectors.index_select(0, piece).float() @ asked for piece in pieces])
        return self.rows[positions], cosines.numpy()


def unit(vectors: np.ndarray) -> Tensor:
    """float32 [N, D] with rows of length 1; rows of zeros stay."""
    return F.normalize(torch.tensor(vectors, dtype=torch.float32), dim=1)


def find_lists(features: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The means [L, D] of lists of N vectors' directions, and the list of each: one list of up to SCANNED
    vectors, sqrt(N) by k-means of more."""
    N, D = features.shape
    if N <= SCANNED:
        return torch.zeros(1, D), np.zeros(N, dtype=np.int64)
    import faiss

    L = round(N**0.5)
    chosen = np.sort(np.random.default_rng(0).choice(N, min(N, SAMPLE * L), replace=False))
    sample = unit(features[chosen])
    middle = sample.mean(
        0
    )  # embeddings lie in a cone: what tells them apart is how they differ from its axis
    kmeans = faiss.Kmeans(D, L, niter=10, seed=0, max_points_per_centroid=SAMPLE)
    kmeans.train((sample - middle).numpy())
    centroids = torch.tensor(kmeans.centroids).view(L, D)
    sums, lists = torch.zeros(L, D), []
    for i in range(0, N, BLOCK):
        block = unit(features[i : i + BLOCK])
        lists.append(((block - middle) @ centroids.T - centroids.square().sum(1) / 2).argmax(1))
        sums.index_add_(0, lists[-1], block)
    sizes = torch.cat(lists).bincount(minlength=L)
    return sums / sizes.clamp(min=1)[:, None], torch.cat(lists).numpy()


@dataclass(frozen=True)
class Source:
    """The file of features, or folder of such files, that an index is of: its size and time of change now."""

    path: Path
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "Source":
        """Raises FileNotFoundError: there is none."""
        if not path.exists():
            raise FileNotFoundError(f"no features file {path}")
        states = [file.stat() for file in cls._files(path)]
        return cls(path, sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0))

    @staticmethod
    def _files(path: Path) -> list[Path]:
        return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]

    def sha256(self) -> str:
        """Of the file; of a folder, of the names, sizes and times of its files."""
        if not self.path.is_dir():
            return sha256_of(self.path)
        states = [(str(file.relative_to(self.path)), file.stat()) for file in self._files(self.path)]
        listed = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def index_of(file: str | Path) -> FeatureIndex:
    """The index of a feature file: the one kept beside it, or a new one where that is of other features.

    Size and SHA-256 of the feature file decide. As hashing takes as long as reading, the index is given the
    feature file's time of change once they have been compared, and is trusted while the two times are equal.
    An index that cannot be written is kept in memory, with a warning.

    Raises:
        FileNotFoundError, ValueError: no such file, none of ours, of texts, without or with broken vectors.
    """
    source = Source.of(Path(os.path.abspath(Path(file).expanduser())))
    path = source.path.with_name(f"{source.path.name}.index")
    if not path.is_file():
        return _build(source, path)
    try:
        index = FeatureIndex.open(path)
        _compare(index, source, path)
    except StaleIndexError as error:
        print(f"{path} is made anew: {error}", file=sys.stderr)
        return _build(source, path)
    warn_if_alike(index.vectors, f"vectors in {file}")
    return index


def _compare(index: FeatureIndex, source: Source, path: Path) -> None:
    """Raises StaleIndexError: the index at `path` is of other features."""
    same = source.size == index.metadata["size"]
    # Of a folder the latest time says little of its other files, and its hash costs no reading.
    if same and (source.path.is_dir() or source.modified_ns != path.stat().st_mtime_ns):
        same = source.sha256() == index.metadata["sha256"]
        if same:
            _mark_compared(path, source)
    if not same:
        raise StaleIndexError("the features have changed")


def _mark_compared(path: Path, source: Source) -> None:
    """Give the index the time of its source; not while the source could change again without a later time."""
    if time.time_ns() - source.modified_ns > 10**9:
        with suppress(OSError):  # another's file: it is compared each time
            os.utime(path, ns=(source.modified_ns, source.modified_ns))


def _build(source: Source, path: Path) -> FeatureIndex:
    file = source.path
    table = load_features(file, without=("tokens",))
    check_searchable(table, file)
    warn_if_alike(table.features, f"vectors in {file}")
    if len(table) > SCANNED:
        print(f"indexing the {len(table)} vectors of {file} into {path}, once", file=sys.stderr)
    index = FeatureIndex.build(table, {"size": source.size, "sha256": source.sha256()})
    if Source.of(file) != source:
        raise RunError(f"{file} was changed while it was indexed; search again when it is complete")
    del table
    with or_warn():
        index.save(path, like=file)
        _mark_compared(path, source)
        return FeatureIndex.open(path)
    return index


def check_searchable(table: FeatureTable, file: str | Path) -> None:
    """Raises ValueError: a table of texts, without vectors, or with NaN or infinity in them."""
    if "path" not in table.columns:
        raise ValueError(f"{file} holds features of texts; a search needs those of videos")
    if not table.features.size:
        raise ValueError(f"{file} holds no vectors; extract features of some videos first")
    for first in range(0, len(table), BLOCK):
        finite = np.isfinite(table.features[first : first + BLOCK]).all(axis=1)
        if not finite.all():
            bad = table.columns["path"][first + int(finite.argmin())]
            raise ValueError(f"{file}: the vector of {bad} holds NaN or infinity; extract it again")
