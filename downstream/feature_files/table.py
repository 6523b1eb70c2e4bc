"""Feature vectors with their columns, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class FeatureTable:
    """R vectors with what belongs to each.

    features: float32 [R, D]. columns: of R values each, list[str] or arrays ("path", "duration" in seconds,
    "num_frames" of the file, "start" and "end" in seconds for windows, "tokens" [R, L, D] …).
    metadata: how they were made (model, checkpoint hash …), plain JSON values.
    """

    features: np.ndarray
    columns: dict[str, Any]
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Sequence[int]) -> FeatureTable:
        """The same with only these rows, in this order."""
        columns = {name: take(column, rows) for name, column in self.columns.items()}
        return FeatureTable(self.features[list(rows)], columns, self.metadata)

    def check_kinds(self, columns: Mapping[str, Any], place: Path) -> None:
        """Raises ValueError where a column is of texts here, and of numbers in `columns`, or the reverse."""
        for name, column in columns.items():
            if isinstance(column, list) != isinstance(self.columns[name], list):
                ours, theirs = ("texts", "numbers") if isinstance(column, list) else ("numbers", "texts")
                raise ValueError(
                    f"the column {name} is of {ours} now, in {place} of {theirs}: choose another --output"
                )

    def put(self, name: str, rows: Sequence[int], values: Any) -> bool:
        """Put other values into a column in some rows. Returns whether that has changed it."""
        column = self.columns[name]
        if isinstance(column, list):
            changed = take(column, rows) != values
            for row, value in zip(rows, values, strict=True):
                column[row] = value
            return changed
        if np.array_equal(column[rows], values, equal_nan=values.dtype.kind == "f"):
            return False
        self.columns[name] = column.astype(np.result_type(column, values))
        self.columns[name][rows] = values
        return True

    def to_pandas(self) -> pd.DataFrame:
        """A row a vector: the columns, then "features", each an array [D]; `metadata` are its `attrs`."""
        import pandas as pd

        columns = {
            name: list(column) if getattr(column, "ndim", 1) > 1 else column
            for name, column in self.columns.items()
        }
        frame = pd.DataFrame({**columns, "features": list(self.features)})
        frame.attrs = dict(self.metadata)
        return frame


def take(column: Any, rows: Sequence[int]) -> Any:
    """The values of a column in these rows."""
    return [column[i] for i in rows] if isinstance(column, list) else column[list(rows)]


def join_tables(tables: Sequence[FeatureTable]) -> FeatureTable:
    """One table of the rows of all. Raises ValueError where they have different columns."""
    for table in tables:
        if table.columns.keys() != tables[0].columns.keys():
            raise ValueError(
                f"tables with the columns {', '.join(table.columns)} and {', '.join(tables[0].columns)} "
                "cannot be joined"
            )
    columns = {}
    for name, column in tables[0].columns.items():
        parts = [table.columns[name] for table in tables]
        if len({isinstance(part, list) for part in parts}) > 1:
            raise ValueError(f"the column {name} is of texts in some of the tables, of numbers in others")
        columns[name] = (
            [x for part in parts for x in part] if isinstance(column, list) else np.concatenate(parts)
        )
    return FeatureTable(np.concatenate([table.features for table in tables]), columns, tables[0].metadata)
