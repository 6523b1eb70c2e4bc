"""A map of feature vectors: near ones lie together, with pictures of some of the videos."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.spans import Span
from downstream.feature_files import FeatureTable
from downstream.report.pages import write_page
from downstream.report.pictures import Picture, thumbnails
from utils.text import told_apart

MOST_POINTS = 3000  # t-SNE of more takes minutes
MOST_PICTURES = 250
WIDTH, HEIGHT, BORDER = 1200, 850, 50  # pixels
COLOURS = (  # of values that have no order
    *("#4878b0", "#e07b39", "#3a9a5b", "#c8433c", "#8a63b5"),
    *("#8c6d4f", "#d46fb0", "#7a8791", "#a9a42d", "#2fa8b8"),
)
OTHERS = "#b5b5b5"
OF_FILES = ("duration", "num_frames", "size_bytes", "start", "end")
SCALE = ("#5b3c9b", "#3f6fc0", "#2a9bab", "#45b36b", "#b8b92f", "#f08a24")  # of numbers, from low to high


@dataclass(frozen=True)
class Colouring:
    """The points by a column of the table: its name, what it says of each point, and the point's entry in the
    legend of {"name", "count", "colour"}."""

    name: str
    values: list[str]
    entries: list[int]
    legend: list[dict[str, Any]]


def write_map(folder: Path, table: FeatureTable, reader: str = "pyav", timeout: float | None = None) -> Path:
    """Write `folder`/features.html, a map of a table of videos or windows. Returns its path."""
    chosen = choose_rows(len(table))
    part = table.take(chosen)
    places = to_canvas(positions(part.features))
    labels = label_rows(part)
    pictures = [picture(part, i) for i in range(len(part))]
    points = [
        {"x": x, "y": y, "label": name, "link": video.link(folder)}
        for (x, y), name, video in zip(places.tolist(), labels, pictures, strict=True)
    ]
    shown = thumbnails({str(i): pictures[i] for i in spread(places, MOST_PICTURES)}, reader, timeout)
    number = f"{len(table)} vectors"
    if len(chosen) < len(table):
        number += f", {len(chosen)} of which, chosen at random, are shown"
    facts = {"model": str(table.metadata["arch"]), "data": number, "places": how(len(chosen))}
    path = folder / "features.html"
    columns = [asdict(colouring) for colouring in colourings(part)]
    values = {"points": points, "columns": columns, "width": WIDTH, "height": HEIGHT}
    write_page(path, "map", "Map of features", facts, shown=shown, index=folder, **values)
    return path


def choose_rows(number: int) -> list[int]:
    """All rows, or MOST_POINTS of them, the same at each call."""
    if number <= MOST_POINTS:
        return list(range(number))
    return sorted(np.random.default_rng(0).choice(number, MOST_POINTS, replace=False).tolist())


def how(number: int) -> str:
    return "t-SNE of the unit vectors" if number >= 10 else "their first two principal components"


def positions(features: np.ndarray) -> np.ndarray:
    """[R, D] -> places in the plane [R, 2]: t-SNE of unit vectors; principal components of fewer than ten."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    vectors = features / np.maximum(lengths, 1e-8)
    if len(vectors) < 10:
        _, _, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        plane = (vectors - vectors.mean(axis=0)) @ axes[:2].T
        return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    from sklearn.manifold import TSNE  # takes seconds to import

    perplexity = min(30, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)


def to_canvas(places: np.ndarray) -> np.ndarray:
    """Places [R, 2] in pixels of the map, each axis filled."""
    low, high = places.min(axis=0), places.max(axis=0)
    share = (places - low) / np.maximum(high - low, 1e-12)
    return BORDER + share * (np.array([WIDTH, HEIGHT]) - 2 * BORDER)


def spread(places: np.ndarray, most: int) -> list[int]:
    """At most so many rows of places [R, 2], the first ones far apart: each is farthest from all before it.

    The page shows as many of their pictures, in this order, as do not hide each other.
    """
    distances = np.linalg.norm(places - places.mean(axis=0), axis=1)
    row, found = int(distances.argmin()), []
    distances[:] = np.inf
    for _ in range(min(most, len(places))):
        found.append(row)
        distances = np.minimum(distances, np.linalg.norm(places - places[row], axis=1))
        distances[row] = -1  # also where others lie in the same place
        row = int(distances.argmax())
    return found


def colourings(table: FeatureTable) -> list[Colouring]:
    """By folder, or by video where the table is of windows; and by each column that divides the rows into
    groups, those of the user before what the extraction notes of files."""
    windows = "start" in table.columns
    groups = [path if windows else path.rpartition("/")[0] for path in table.columns["path"]]
    names = told_apart(groups)
    found = [by_value("video" if windows else "folder", [names[group] for group in groups])]
    for name, column in table.columns.items():
        if name in ("path", "modified_ns") or np.ndim(column) > 1:
            continue  # says nothing of a group
        numbers = column if isinstance(column, np.ndarray) and column.dtype.kind in "iuf" else None
        values = [format(value, "g") if numbers is not None else str(value) for value in column]
        if numbers is not None and len(set(values)) > len(COLOURS):
            found.append(by_number(name, values, numbers.astype(float)))
        elif 1 < len(set(values)) < len(values):
            found.append(by_value(name, values))
    return sorted(found, key=lambda colouring: (colouring.name in OF_FILES, len(colouring.legend) == 1))


def by_value(name: str, values: list[str]) -> Colouring:
    """A colour for each of the most frequent values; the others share grey."""
    counts = Counter(values).most_common()
    named = counts[: len(COLOURS)]
    legend = [
        {"name": value, "count": count, "colour": colour}
        for (value, count), colour in zip(named, COLOURS, strict=False)
    ]
    if rest := sum(count for _, count in counts[len(COLOURS) :]):
        legend.append({"name": "others", "count": rest, "colour": OTHERS})
    entries = {value: i for i, (value, _) in enumerate(named)}
    return Colouring(name, values, [entries.get(value, len(named)) for value in values], legend)


def by_number(name: str, values: list[str], numbers: np.ndarray) -> Colouring:
    """A colour for each sixth of the points, from low to high, and grey for what is no number."""
    known = np.isfinite(numbers)
    bounds = np.unique(np.quantile(numbers[known], np.linspace(0, 1, len(SCALE) + 1)))
    entries = np.clip(np.searchsorted(bounds, numbers, side="right") - 1, 0, max(0, len(bounds) - 2))
    legend: list[dict[str, Any]] = []
    place = np.full(len(numbers), -1)
    for entry in np.unique(entries[known]).tolist():
        own = known & (entries == entry)
        place[own] = len(legend)
        ends = f"{numbers[own].min():g} to {numbers[own].max():g}"
        legend.append({"name": ends, "count": int(own.sum()), "colour": SCALE[entry]})
    if not known.all():
        place[~known] = len(legend)
        legend.append({"name": "none", "count": int((~known).sum()), "colour": OTHERS})
    return Colouring(name, values, place.tolist(), legend)


def label_rows(table: FeatureTable) -> list[str]:
    """What each row is called: its file, and the seconds of a window."""
    paths: Sequence[str] = table.columns["path"]
    names = told_apart(paths)
    if "start" not in table.columns:
        return [names[path] for path in paths]
    times = zip(paths, table.columns["start"], table.columns["end"], strict=True)
    return [f"{names[path]}, {start:g} to {end:g} s" for path, start, end in times]


def picture(table: FeatureTable, row: int) -> Picture:
    """The frame in the middle of a video or window."""
    columns = table.columns
    span = None
    if "start" in columns:
        span = Span(float(columns["start"][row]), float(columns["end"][row]))
    return Picture(columns["path"][row], (0.5,), span)
