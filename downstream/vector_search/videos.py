"""Videos and windows found in files of features: `VideoIndex` searches them, a `Hit` is what it finds."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.spans import Span
from downstream.feature_files import FeatureTable
from downstream.report.pictures import Picture
from downstream.vector_search.columns import Condition
from downstream.vector_search.index import FeatureIndex, check_searchable, index_of, unit

SAME_MODEL = ("arch", "checkpoint_sha256")


@dataclass(frozen=True)
class Hit:
    """A video, or the window [start, end) of it in seconds, and the cosine of its vector to the query's.

    row: of the table, counted on from one file to the next. columns: all that the table says of it.
    """

    path: str
    similarity: float
    start: float | None = None
    end: float | None = None
    duration: float = math.nan
    row: int = 0
    columns: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def times(self) -> str:
        """When it happens, "1:20–1:30"; empty for a whole video."""
        return "" if self.start is None or self.end is None else f"{clock(self.start)}–{clock(self.end)}"

    @property
    def name(self) -> str:
        return f"{self.path} {self.times}".strip()

    @property
    def picture(self) -> Picture:
        """What happens in it, from first to last."""
        if self.start is None or self.end is None:
            return Picture(self.path)
        return Picture(self.path, span=Span(self.start, self.end))


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss, with tenths where there are any."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


class VideoIndex:
    """The vectors of one file of features or several, searched by cosine: exactly, or of more than
    `index.SCANNED` in a file, nearly so."""

    def __init__(self, parts: Sequence[FeatureIndex], names: Sequence[str]):
        self.parts, self.names = parts, names
        self.first_rows = np.cumsum([0, *map(len, parts)])

    @classmethod
    def from_files(cls, files: Sequence[str | Path]) -> tuple["VideoIndex", dict[str, Any]]:
        """The index of all rows of feature files, and the metadata of the first (model, checkpoint hash …).

        Raises:
            FileNotFoundError, ValueError: no such file, one given twice, or of another model; as `index_of`.
        """
        if not files:
            raise ValueError("no features file given")
        resolved = [Path(file).expanduser().resolve() for file in files]
        for i, file in enumerate(resolved):
            if file in resolved[:i]:
                raise ValueError(f"{files[i]} is given twice; each row would be found twice")
        parts = [index_of(file) for file in files]
        first = parts[0].metadata["features"]
        for name, part in zip(files, parts, strict=True):
            other = part.metadata["features"]
            for key in SAME_MODEL:
                if other.get(key) != first.get(key):
                    raise ValueError(
                        f"{name} and {files[0]} were made by different models "
                        f"({key} {other.get(key)!r} and {first.get(key)!r}): search them one by one"
                    )
            if part.dim != parts[0].dim:
                raise ValueError(
                    f"{name} holds vectors of {part.dim} numbers, {files[0]} of {parts[0].dim}: "
                    "search them one by one"
                )
        return cls(parts, [str(file) for file in files]), first

    @classmethod
    def of_table(cls, table: FeatureTable, name: str = "the table") -> "VideoIndex":
        """Of a table in memory. Raises ValueError: of texts, empty, or not finite."""
        check_searchable(table, name)
        return cls([FeatureIndex.build(table, {})], [name])

    def __len__(self) -> int:
        return int(self.first_rows[-1])

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    @property
    def videos(self) -> int:
        """How many there are, each counted once."""
        paths = [part.paths for part in self.parts]
        return len(set().union(*(path.texts() for path in paths))) if len(paths) > 1 else len(paths[0].ends)

    def search(
        self,
        queries: np.ndarray,
        top: int = 10,
        one_per_video: bool = False,
        allowed: np.ndarray | None = None,
    ) -> list[list[Hit]]:
        """The `top` nearest rows of each of queries [Q, D], nearest first.

        one_per_video: the best window of each video only, so that one long video cannot fill the list.
        allowed: bool [R], the rows to choose from, see `matching`; None: all.

        Raises ValueError: queries of another size than the vectors.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(
                f"queries are {list(queries.shape)}, expected [Q, {self.dim}] as the vectors have it"
            )
        return [self._search(query, top, one_per_video, allowed) for query in unit(queries).numpy()]

    def _search(
        self, query: np.ndarray, top: int, one_per_video: bool, allowed: np.ndarray | None
    ) -> list[Hit]:
        found = []
        for part, first in zip(self.parts, self.first_rows[:-1].tolist(), strict=True):
            of_part = None if allowed is None else allowed[first : first + len(part)]
            rows, cosines = part.nearest(query, top, one_per_video, of_part)
            found += [
                (cosine, first + row) for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)
            ]
        hits = (self.hit(row, cosine) for cosine, row in sorted(found, key=lambda pair: (-pair[0], pair[1])))
        if one_per_video:  # a video may be in several files
            once: dict[str, Hit] = {}
            for hit in hits:
                once.setdefault(hit.path, hit)
            return list(islice(once.values(), top))
        return list(islice(hits, top))

    def matching(self, conditions: Sequence[Condition], without: Collection[int] = ()) -> np.ndarray | None:
        """Which rows all conditions hold for, bool [R], but for the rows `without`; None: all of them.

        Raises ValueError: a column that there is not, or a comparison that makes no sense.
        """
        if not conditions and not without:
            return None
        allowed = np.ones(len(self), dtype=bool)
        allowed[list(without)] = False
        for condition in conditions:
            of_parts = zip(self.parts, self.names, strict=True)
            allowed &= np.concatenate([condition.rows(part.columns, name) for part, name in of_parts])
        return allowed

    def vector(self, row: int) -> np.ndarray:
        """That of a row, float32 [D], of length 1. Raises ValueError: there is no such row."""
        part, row = self._place(row)
        return part.vector(row)

    def hit(self, row: int, similarity: float) -> Hit:
        part, place = self._place(row)
        columns = {name: column[place] for name, column in part.columns.items()}
        start, end, duration = (_number(columns.get(name)) for name in ("start", "end", "duration"))
        if start is None or end is None:
            start = end = None
        return Hit(
            columns["path"], similarity, start, end, math.nan if duration is None else duration, row, columns
        )

    def _place(self, row: int) -> tuple[FeatureIndex, int]:
        if not 0 <= row < len(self):
            raise ValueError(f"there is no row {row}; the features have rows 0 to {len(self) - 1}")
        i = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.parts[i], row - int(self.first_rows[i])


def _number(value: Any) -> float | None:
    """A cell of a table from anywhere that is a number."""
    return value if isinstance(value, int | float) and not math.isnan(value) else None
