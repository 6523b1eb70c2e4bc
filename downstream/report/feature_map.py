"""A map of feature vectors: near ones lie together, with pictures of some of the videos."""

import math
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from downstream.feature_files import FeatureTable
from downstream.report.pages import Picture, Thumbnails, thumbnails, write_page

MOST_POINTS = 3000  # t-SNE of more takes minutes
WIDTH, HEIGHT, BORDER = 1200, 850, 50  # pixels
CELL = (110, 85)  # pixels; each cell of this grid that has points shows one picture
COLOURS = (
    *("#4878b0", "#e07b39", "#3a9a5b", "#c8433c", "#8a63b5"),
    *("#8c6d4f", "#d46fb0", "#7a8791", "#a9a42d", "#2fa8b8"),
)


def write_map(folder: Path, table: FeatureTable, reader: str = "pyav", timeout: float | None = None) -> Path:
    """Write `folder`/features.html, a map of a table of videos or windows. Returns its path.

    Points are coloured by folder, or by video where the table is of windows.
    """
    chosen = choose_rows(len(table))
    part = table.take(chosen)
    places = to_canvas(positions(part.features))
    groups = group_names(part)
    colours, legend = colour_groups(groups)
    points = [
        {"x": x, "y": y, "label": label(part, i), "colour": colours[groups[i]]}
        for i, (x, y) in enumerate(places.tolist())
    ]
    shown = {str(i): picture(part, i) for i in rows_with_pictures(places)}
    found = thumbnails(shown, reader, timeout)
    pictures = [points[int(i)] | {"uri": uri} for i, uri in found.uris.items()]
    about = f"{len(table)} vectors, {table.metadata['arch']}; {how(len(chosen))}"
    if len(chosen) < len(table):
        about += f"; {len(chosen)} of them, chosen at random, are shown"
    path = folder / "features.html"
    size = {"width": WIDTH, "height": HEIGHT}
    values = {"points": points, "pictures": pictures, "legend": legend, "shown": Thumbnails({}, {})}
    write_page(path, "map.html", title="Map of features", about=about, **size, **values)
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


def rows_with_pictures(places: np.ndarray) -> list[int]:
    """Of each cell of a grid over the map the row nearest to its centre."""
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for i, (x, y) in enumerate(places.tolist()):
        cell = int(x // CELL[0]), int(y // CELL[1])
        distance = math.dist((x / CELL[0] - cell[0], y / CELL[1] - cell[1]), (0.5, 0.5))
        best[cell] = min(best.get(cell, (math.inf, -1)), (distance, i))
    return sorted(i for _, i in best.values())


def group_names(table: FeatureTable) -> list[str]:
    """What each row is coloured by: its video where rows are windows, or else its folder."""
    paths = [Path(path) for path in table.columns["path"]]
    return [path.name if "start" in table.columns else path.parent.name for path in paths]


def colour_groups(groups: list[str]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """A colour for each group (the small ones share grey), and the legend."""
    counts = Counter(groups).most_common()
    named = counts[: len(COLOURS)]
    colours = dict.fromkeys(groups, "#b5b5b5") | {
        name: colour for (name, _), colour in zip(named, COLOURS, strict=False)
    }
    legend = [{"name": name, "count": count, "colour": colours[name]} for name, count in named]
    if rest := sum(count for _, count in counts[len(COLOURS) :]):
        legend.append({"name": "others", "count": rest, "colour": "#b5b5b5"})
    return colours, legend


def label(table: FeatureTable, row: int) -> str:
    path = table.columns["path"][row]
    if "start" not in table.columns:
        return path
    return f"{path}, {table.columns['start'][row]:g} to {table.columns['end'][row]:g} s"


def picture(table: FeatureTable, row: int) -> Picture:
    """The frame in the middle of a video or window."""
    columns = table.columns
    place = 0.5
    if "start" in columns:
        place = float((columns["start"][row] + columns["end"][row]) / 2 / columns["duration"][row])
    return Picture(lambda: nullcontext(columns["path"][row]), (place,))
