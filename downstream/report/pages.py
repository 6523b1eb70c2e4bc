"""Results as pages to look at: one HTML file each, its pictures inside, nothing taken from a network."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from einops import rearrange
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from tqdm import tqdm

from data_loader.dataset import VideoDataset
from data_loader.labels import LabelRecords, MultiLabelRecords
from data_loader.sampling import frame_at
from data_loader.spans import Span
from data_loader.video import Video, VideoReadError, read_frames
from downstream.report import Evaluation, per_class
from utils.files import write_text
from utils.schema import EvaluationConfig
from utils.text import counted

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
THUMBNAIL = (96, 72)  # pixels at most, width and height of a frame; a strip is three wide, as in page.html
MOST_QUERIES = 1000  # on a page; more would be slow to open, and nobody reads that far
STRIP = (1 / 6, 1 / 2, 5 / 6)  # the middle of each third
GAP = 2  # pixels between the frames of a strip


@dataclass(frozen=True)
class Picture:
    """Frames of a video to be shown side by side: where the video is, and the places in it, or in its `span`,
    from 0 to 1.

    `open` gives the path of the file while its context lasts.
    """

    open: Callable[[], AbstractContextManager[str | Path]]
    places: tuple[float, ...] = STRIP
    span: Span | None = None

    def frames(self, video: Video) -> list[int]:
        """The frames that are shown at the places, by time."""
        start, end = self.span or Span()
        end = min(end, video.duration)
        return [frame_at(video.times, start + place * (end - start)) for place in self.places]


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of a page by name: data URIs, and the reason where a video could not be read."""

    uris: dict[str, str]
    failed: dict[str, str]

    @property
    def names(self) -> dict[str, str]:
        """Picture -> the CSS class that shows it: each is in the page once, however often shown."""
        return {name: f"t{i}" for i, name in enumerate(self.uris)}


def thumbnails(
    pictures: dict[str, Picture], reader: str = "pyav", timeout: float | None = None
) -> Thumbnails:
    """Read and shrink pictures, several at a time. A video that cannot be read costs its picture alone."""
    uris: dict[str, str] = {}
    failed: dict[str, str] = {}

    def shrink(picture: Picture) -> str | VideoReadError:
        try:
            with picture.open() as path:
                frames, _, _ = read_frames(path, picture.frames, reader, timeout)
        except VideoReadError as error:
            return error
        pixels = rearrange(frames.numpy(), "t c h w -> t h w c")
        return data_uri(side_by_side([Image.fromarray(frame) for frame in pixels]))

    with ThreadPoolExecutor(8) as pool:
        bar = tqdm(total=len(pictures), unit="picture", desc="page", leave=False, disable=None)
        for name, made in zip(pictures, pool.map(shrink, pictures.values()), strict=True):
            bar.update()
            if isinstance(made, VideoReadError):
                failed[name] = made.reason
            else:
                uris[name] = made
        bar.close()
    return Thumbnails(uris, failed)


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size, made small, from left to right."""
    for image in images:
        image.thumbnail(THUMBNAIL)
    width, height = images[0].size
    strip = Image.new("RGB", (len(images) * (width + GAP) - GAP, height))
    for i, image in enumerate(images):
        strip.paste(image, (i * (width + GAP), 0))
    return strip


def data_uri(image: Image.Image) -> str:
    """A JPEG of `image`, as text that stands for it in HTML."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of templates/ and put it at `path` in one step; all values are escaped."""
    text = TEMPLATES.get_template(template).render(**values)
    write_text(text, path)


def write_report(
    folder: Path, evaluation: Evaluation, dataset: VideoDataset, weights: str, table: str
) -> Path:
    """Write the page of an evaluation, `folder`/<task>_<data set>.html. Returns its path.

    weights: of the model, for the page's foot. table: the metrics, as the terminal shows them.
    Retrieval and multiple choice: the queries with what was ranked first, the true one marked, worst cases
    first. Recognition and probes: confusion matrix and accuracy of each class; with several labels a
    video, each class's average precision.
    """
    name, protocol, queries = evaluation.config.name, evaluation.protocol, evaluation.measured.queries
    path = folder / f"{protocol}_{name}.html"
    common = {
        "title": f"{name}: {protocol.replace('_', ' ')}",
        "about": f"{evaluation.arch} on {counted(len(dataset), 'videos')}",
        "footer": weights,
        "table": table,
    }
    if protocol in ("retrieval", "multiple_choice"):
        worst = sorted(queries, key=lambda query: -query["rank"])[:MOST_QUERIES]
        heading = f"The {len(worst)} queries with the worst ranks, of {len(queries)}"
        if len(worst) == len(queries):
            heading = "Every query, worst ranks first"
        items = [ranking_item(query) for query in worst]
        shown = video_pictures(pictures_of(items), dataset, evaluation.config)
        write_page(path, "ranking.html", **common, heading=heading, items=items, shown=shown)
    elif isinstance(dataset.records, MultiLabelRecords):
        rows = sorted(evaluation.measured.details["per_class"], key=lambda row: (row["AP"], row["name"]))
        write_page(path, "average_precision.html", **common, rows=rows, shown=Thumbnails({}, {}))
    else:
        values = confusion(queries, dataset.records_as(LabelRecords).class_names)
        write_page(path, "confusion.html", **common, **values, shown=Thumbnails({}, {}))
    return path


def ranking_item(query: dict[str, Any]) -> dict[str, Any]:
    """A query of an Evaluation as the page shows it: the first candidates, and the true one wherever it came.

    In retrieval the candidates are videos, in multiple choice the texts that one video chooses among.
    Two such texts may be equal, so the true one is known by its rank; a video is known by its name.
    """
    retrieval = "caption" in query
    truth = query["video"] if retrieval else query["answer"]
    cards = [
        {
            "rank": rank,
            "label": label,
            "similarity": similarity,
            "true": label == truth and (retrieval or rank == query["rank"]),
            "picture": label if retrieval else None,
        }
        for rank, (label, similarity) in enumerate(query["top"], 1)
    ]
    if not any(card["true"] for card in cards):
        late = {"rank": query["rank"], "label": truth, "similarity": query["similarity"]}
        cards.append(late | {"true": True, "picture": truth if retrieval else None})
    return {
        "query": query["caption"] if retrieval else query["video"],
        "picture": None if retrieval else query["video"],
        "rank": query["rank"],
        "cards": cards,
    }


def pictures_of(items: Iterable[dict[str, Any]]) -> list[str]:
    """The videos that ranking items show, each once."""
    shown = [part["picture"] for item in items for part in (item, *item["cards"])]
    return list(dict.fromkeys(name for name in shown if name is not None))


def video_pictures(names: Sequence[str], dataset: VideoDataset, config: EvaluationConfig) -> Thumbnails:
    """Three frames of each of these videos of a data set, in their order."""
    index = {dataset.records.id(i): i for i in range(len(dataset))}
    records = dataset.records
    pictures = {
        name: Picture(partial(records.video_file, i), span=records.span(i))
        for name, i in ((name, index[name]) for name in names)
    }
    return thumbnails(pictures, config.reader, config.read_timeout)


def confusion(queries: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Which class was taken for which: the cells of the matrix that are not empty; each class's accuracy."""
    number = {name: i for i, name in enumerate(classes)}
    totals = Counter(query["class"] for query in queries)
    counts = Counter((query["class"], query["predicted"]) for query in queries)
    cells = [
        {
            "row": number[true],
            "column": number[guess],
            "count": count,
            "total": totals[true],
            "share": count / totals[true],
        }
        for (true, guess), count in counts.items()
    ]
    wrong = sorted((c for c in cells if c["row"] != c["column"]), key=lambda c: (-c["count"], c["row"]))
    cell = 16 if len(classes) <= 60 else 10 if len(classes) <= 150 else 5
    return {
        "classes": list(classes),
        "cells": sorted(cells, key=lambda c: (c["row"], c["column"])),
        "confusions": wrong[:20],
        "per_class": per_class(queries),
        "cell": cell,
        "margin": 10 + round(min(cell * 0.8, 12) * 0.6 * max(map(len, classes))),
    }
