"""Extraction that can be stopped at any moment: finished batches lie in part files until all are there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from downstream.feature_files import FeatureTable, join_tables, read_features, write_features
from utils.files import write_text

Key = tuple[Any, ...]
KEY_COLUMNS = ("path", "size_bytes", "modified_ns", "start")  # "start" only with windows


def row_keys(table: FeatureTable) -> list[Key]:
    """What each row is of: file, size, time of last change, and the window's start if there are windows."""
    columns = [table.columns[name] for name in KEY_COLUMNS if name in table.columns]
    plain = [column if isinstance(column, list) else column.tolist() for column in columns]
    return list(zip(*plain, strict=True))


class PartStore:
    """Rows on their way into the file `output`, in `output`.parts/ next to it.

    A part is written under a temporary name and renamed, so after a kill there are only whole ones. Rows of
    an `output` from before count as finished when `facts` (model, checkpoint, window …) are the same.
    """

    def __init__(self, output: Path, facts: dict[str, Any]):
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")
        self.facts = facts

    def begin(self, overwrite: bool = False) -> set[Key]:
        """Make the folder; the keys of the rows that are finished already.

        Raises:
            ValueError: what is there was made with other settings, and `overwrite` is false.
        """
        if overwrite:
            self.output.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.output.exists():
            self._check(read_features(self.output).facts, self.output)
        begun = self.folder / "facts.json"
        if begun.exists():
            self._check(json.loads(begun.read_text()), self.folder)
        write_text(json.dumps(self.facts), begun)
        return {key for table in self._tables() for key in row_keys(table)}

    def add(self, table: FeatureTable) -> None:
        """Keep finished rows; safe from several processes at once."""
        write_features(self.folder / f"{uuid4().hex}.safetensors", table)

    def finish(self, wanted: Sequence[Key]) -> FeatureTable | None:
        """Join all rows of `wanted` that are there, in that order, into `output`, and remove the folder.

        Returns:
            the table; None when there is none of these rows. Rows of before then stay: their videos may be
            out of reach for a while.
        """
        tables = self._tables()
        if not tables:
            shutil.rmtree(self.folder)
            return None
        table = join_tables(tables)
        row = {key: i for i, key in enumerate(row_keys(table))}
        rows = [row[key] for key in wanted if key in row]
        if not rows:
            return None
        table = table.take(rows)
        write_features(self.output, table)
        shutil.rmtree(self.folder)
        return table

    def _tables(self) -> list[FeatureTable]:
        tables = [read_features(self.output)] if self.output.exists() else []
        return tables + [read_features(part) for part in sorted(self.folder.glob("[!.]*.safetensors"))]

    def _check(self, facts: dict[str, Any], place: Path) -> None:
        different = sorted(
            key for key in facts.keys() | self.facts.keys() if facts.get(key) != self.facts.get(key)
        )
        if different:
            changes = ", ".join(
                f"{key} {facts.get(key)!r} (now {self.facts.get(key)!r})" for key in different
            )
            raise ValueError(
                f"{place} was made with other settings: {changes}. Choose another --output, or --overwrite it"
            )
