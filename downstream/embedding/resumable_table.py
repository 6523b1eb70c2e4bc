"""The table of embeddings behind extraction, evaluation and probe, which can be stopped at any moment."""

import json
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from uuid import uuid4

from downstream.embedding.row_keys import Key, first_places, moved_files, row_keys
from downstream.feature_files import (
    FeatureTable,
    folders,
    has_features,
    is_folder,
    load_features,
    write_features,
)
from downstream.feature_files.table import join_tables, take
from utils.errors import Interrupted, RunError
from utils.files import WriteError, or_warn, write_text
from utils.lock import lock_folder
from utils.processes import DistContext
from utils.text import counted, one_line

SAVE_EVERY_S = 30.0
BUFFER_BYTES = 256 * 2**20  # of rows that wait to be saved: all tokens of a clip are 7 MB


class ResumableTable:
    """Rows on their way into the file `output`, on all processes of a run, in `output`.parts/ next to it.

    with ResumableTable(output, metadata, context) as table:
        for i in table.start(keys):  # those that are not there yet
            table.add(...)
        rows = table.finish()

    Every process saves its rows about twice a minute, in files that are whole or absent, so that a run that
    ends at any moment, by a signal, an error or a power cut, goes on where it was. Rows of `output` that are
    not asked for stay in it. A video is known by its path, size and time of last change; where its path is
    gone, and one new file of the same name, size and time is asked for, it has been moved, and its rows with
    it. One run at a time writes to an output.

    Args:
        metadata: what the vectors depend on besides the rows' keys (model, precision …). Rows made with other
            metadata do not belong into the same table.
        overwrite: begin anew; what was there goes when the new rows are complete.
        disposable: the rows can be made again. What was made with other metadata, or cannot be read, is
            replaced, and what cannot be written goes without: both with a warning.
    """

    def __init__(
        self,
        output: Path,
        metadata: Mapping[str, Any],
        context: DistContext,
        *,
        overwrite: bool = False,
        disposable: bool = False,
    ):
        self.output, self.context = output, context
        self.folder = output.with_name(f"{output.name}.parts")
        self.metadata = json.loads(json.dumps(metadata))
        self.overwrite, self.disposable = overwrite, disposable
        self.moved = 0  # rows whose video has another path now
        self.others = 0  # rows in the output that were not wanted, known when it is finished
        self._replacing = self.folder / "replaces the output"  # there until an overwriting run is complete
        self._buffer: list[FeatureTable] = []
        self._unsaved: list[FeatureTable] = []
        self._saved_at = time.monotonic()
        self._lock: IO[str] | None = None
        self._wanted: list[Key] = []
        self._place: dict[Key, int] = {}
        self._columns: dict[str, Any] = {}
        self._there = self._added = 0
        self._renamed: dict[Key, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save what is finished, whatever happened. A KeyboardInterrupt then says what is saved."""
        try:
            if kind is not None:
                if not issubclass(kind, WriteError):
                    with or_warn():
                        self.flush()
                if self.context.is_main and self._lock and not self._parts():
                    shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            if self._lock:
                self._lock.close()
        if kind is KeyboardInterrupt:
            raise Interrupted(self._progress()) from None

    def start(self, wanted: Sequence[Key], columns: Mapping[str, Any] | None = None) -> list[int]:
        """Take the output for this run, and find which of the rows `wanted` are still to be made.

        columns: more that the output is to say of the rows wanted, also of those that are there already.

        Returns:
            their places in `wanted`, of equal ones the first, on every process.

        Raises:
            ValueError: what is there was made with other settings, or is no table.
            RunError: another run is writing to this output.
            WriteError: the folder cannot be written.
        """
        self._wanted, self._columns = list(wanted), dict(columns or {})
        self._place = first_places(self._wanted)
        self._saved_at = time.monotonic()
        self._there, self.moved, pending = self.context.broadcast_object(
            self._begin() if self.context.is_main else None
        )
        return pending

    def add(self, rows: FeatureTable) -> None:
        """Keep finished rows; they are on the disk within SAVE_EVERY_S and the time between two calls."""
        rows.metadata = self.metadata
        if self._columns:
            places = [self._place[key] for key in row_keys(rows)]
            rows.columns |= {name: take(column, places) for name, column in self._columns.items()}
        self._buffer.append(rows)
        self._added += len(rows)
        waiting = sum(
            part.features.nbytes + sum(getattr(column, "nbytes", 0) for column in part.columns.values())
            for part in self._buffer
        )
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S or waiting > BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, as a part of their own. Raises WriteError; they then go on waiting."""
        if self._buffer and not self._unsaved:
            part = join_tables(self._buffer)
            try:
                write_features(self.folder / f"{uuid4().hex}.safetensors", part)
            except WriteError as error:
                if not self.disposable:
                    raise
                print(f"warning: {error}", file=sys.stderr)
                self._unsaved.append(part)
            self._buffer.clear()
        elif self._buffer:  # there is nowhere to write to, as a warning has said
            self._unsaved += self._buffer
            self._buffer.clear()
        self._saved_at = time.monotonic()

    def finish(self, failed: Collection[int] = ()) -> FeatureTable | None:
        """Write the output, all processes' rows and those from before, and remove the parts.

        Args:
            failed: places of the wanted rows that could not be made, those of all processes.

        Returns:
            on the first process the rows that were wanted, in that order, without the failed ones; None if
            there are none of these, and on other processes. In the file they come behind the other rows,
            which keep their order. Rows that a changed video had before are gone; where it could not be
            read, they stay.

        Raises:
            RunError: rows are missing that were made, on every process.
            WriteError: the output cannot be written.
        """
        self.flush()
        unsaved = [part for parts in self.context.gather_objects(self._unsaved) for part in parts]
        if not self.context.is_main:
            if fault := self.context.broadcast_object(None):
                raise RunError(fault)
            return None
        not_made = {self._wanted[i] for i in failed}
        saved = self._tables()
        as_it_is = len(saved) == 1 and not (unsaved or self._renamed or self._parts())
        tables = saved + unsaved
        everything = join_tables(tables) if tables else None
        keys = self._current_keys(everything) if everything else []
        row = {key: i for i, key in enumerate(keys)}
        renewed = self._renew_columns(everything, row)
        lost = [key for key in self._wanted if key not in row and key not in not_made]
        fault = None
        if lost:
            fault = (
                f"{counted(len(lost), 'vectors')} that this run has made are not in {self.folder}, the first "
                f"{one_line(str(lost[0][0]))}. Has it been deleted, or do other machines not see it? "
                "The same command makes them again"
            )
        if self.context.broadcast_object(fault):
            raise RunError(fault)
        rows = [row[key] for key in self._wanted if key in row]
        if everything is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        state = {keys[i][0]: keys[i][1:3] for i in rows}  # of each file now
        asked_for = set(self._wanted)
        others = [
            i for key, i in row.items() if key not in asked_for and key[1:3] == state.get(key[0], key[1:3])
        ]
        self.others = len(others)
        kept = [*others, *rows]
        if not as_it_is or renewed or kept != list(range(len(everything))):
            self._write(everything.take(kept))
        shutil.rmtree(self.folder, ignore_errors=True)
        return everything.take(rows) if rows else None

    def _begin(self) -> tuple[int, int, list[int]]:
        """How many rows are there, how many of them under another path, and which are to be made."""
        if is_folder(self.output) and not self._parts():  # of a run that ended while it wrote
            folders.check_ours(self.output, [key[0] for key in self._wanted], self.overwrite)
        with or_warn() if self.disposable else nullcontext():
            self._lock = lock_folder(self.folder, str(self.output), "choose another --output")
            if self.overwrite:
                for part in self._parts():
                    part.unlink()
                if has_features(self.output):
                    write_text("", self._replacing)
        tables = self._tables(without=("tokens",))
        for table in tables:
            table.check_kinds(self._columns, self.output)
        have = {key for table in tables for key in row_keys(table)}
        self._renamed = moved_files(have, self._wanted)
        if is_folder(self.output):
            kept = [self._renamed.get(key, str(key[0])) for key in have]
            folders.check_names(self.output, kept + [key[0] for key in self._wanted])
        have |= {(path, *key[1:]) for key, path in self._renamed.items()}
        pending = [i for key, i in self._place.items() if key not in have]
        return len(set(self._wanted) & have), len(self._renamed), pending

    def _current_keys(self, table: FeatureTable) -> list[Key]:
        """The keys of all rows, those of moved videos with their new path, which the table gets, too."""
        keys = row_keys(table)
        if self._renamed:
            table.columns["path"] = [self._renamed.get(key, key[0]) for key in keys]
            keys = row_keys(table)
        return keys

    def _renew_columns(self, table: FeatureTable | None, row: Mapping[Key, int]) -> bool:
        """Put what this run says of its rows in place of what was said; whether that differed."""
        there = [(i, row[key]) for key, i in self._place.items() if key in row]
        if table is None or not there:
            return False
        ours, theirs = map(list, zip(*there, strict=True))
        changed = [table.put(name, theirs, take(column, ours)) for name, column in self._columns.items()]
        return any(changed)

    def _tables(self, without: Collection[str] = ()) -> list[FeatureTable]:
        """What is on the disk, the output first. Raises ValueError where it was made with other settings."""
        tables = []
        if has_features(self.output) and not self._replacing.exists() and not self.overwrite:
            try:
                table = load_features(self.output, without)
                self._check(table, self.output)
                tables.append(table)
            except (ValueError, OSError) as error:
                if not self.disposable:
                    raise
                print(f"embedded anew: {error}", file=sys.stderr)
                with or_warn():
                    self._discard()
        for part in self._parts():
            try:
                table = load_features(part, without)
            except ValueError as error:
                print(f"warning: its rows are made again: {error}", file=sys.stderr)
                continue
            try:
                self._check(table, self.folder)
                tables.append(table)
            except ValueError as error:
                if not self.disposable:
                    raise
                print(f"embedded anew: {error}", file=sys.stderr)
                part.unlink()
        return tables

    def _discard(self) -> None:
        """Remove an output of no use. Raises WriteError."""
        try:
            self.output.unlink()
        except OSError as error:
            raise WriteError.of(self.output, error) from error

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.safetensors"))

    def _write(self, table: FeatureTable) -> None:
        try:
            write_features(self.output, table)
        except WriteError as error:
            if not self.disposable:
                raise
            print(f"warning: {error}", file=sys.stderr)

    def _check(self, table: FeatureTable, place: Path) -> None:
        theirs, ours = table.metadata, self.metadata
        different = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        if different:
            changes = ", ".join(f"{key} {theirs.get(key)!r} (now {ours.get(key)!r})" for key in different)
            advice = "" if self.disposable else ". Choose another --output, or --overwrite it"
            raise ValueError(f"{place} was made with other settings: {changes}{advice}")

    def _progress(self) -> str:
        """What a person who stopped the run wants to know."""
        goes_on = f"the same command{' without --overwrite' if self.overwrite else ''} goes on from there"
        if not self._wanted:
            return "nothing was embedded yet; the same command starts again"
        if self._unsaved:
            return f"what was embedded could not be kept in {self.folder}"
        if self.context.world_size > 1:
            return f"what was embedded is kept in {self.folder}; {goes_on}"
        done = self._there + self._added
        return f"{done} of {counted(len(set(self._wanted)), 'vectors')} are kept in {self.folder}; {goes_on}"
