"""All tokens of many videos on the disk: made once, too many for memory."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import torch
from torch import Tensor

from downstream.embedding.resumable_table import Key, row_keys
from downstream.feature_files import FeatureTable
from utils.errors import Interrupted, RunError
from utils.files import WriteError, write_text
from utils.lock import lock_folder
from utils.processes import DistContext
from utils.text import counted

GB = 1e9


class TokenCache:
    """float16 [N, L, D], the tokens of N videos, in `folder`/tokens.bin; every process writes its rows to it.
    Of videos seen in W views it is [N, W, L, D].

    It is filled as a `ResumableTable` is: start, add, finish. A row counts once it is on the disk, so that a
    run that ends at any moment goes on where it was. What was made with other metadata, or is not whole any
    more, is replaced.

    Args:
        shape: of a row, (L, D) or (W, L, D).
        metadata: what tokens depend on besides the videos (model, precision …).
    """

    def __init__(
        self, folder: Path, shape: tuple[int, ...], metadata: Mapping[str, Any], context: DistContext
    ):
        self.folder, self.shape, self.context = folder, shape, context
        self.metadata = json.loads(json.dumps(metadata))
        self.row_bytes = 2 * prod(shape)
        self.clips = prod(shape[:-2])  # a row
        self._row: dict[Key, int] = {}
        self._places: list[int] = []  # of the wanted rows
        self._lock: IO[str] | None = None
        self._files: list[int] = []  # descriptors of tokens.bin and done.bin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            os.close(file)
        if self._lock:
            self._lock.close()
        if kind is KeyboardInterrupt:
            done = int(np.fromfile(self.folder / "done.bin", dtype=np.uint8).sum())
            raise Interrupted(
                f"the tokens of {done} of {counted(len(self._row), 'videos')} are kept in {self.folder}; the "
                "same command goes on from there"
            ) from None

    def start(self, wanted: Sequence[Key]) -> list[int]:
        """Take the folder for this run, and find which of the rows `wanted` are still to be made.

        Returns:
            their places in `wanted`, of equal ones the first, on every process.

        Raises:
            RunError: the disk has no room for all, or another run is writing here. WriteError.
        """
        for i, key in enumerate(wanted):
            self._row.setdefault(key, i)
        self._places = [self._row[key] for key in wanted]
        pending = self.context.broadcast_object(self._begin(wanted) if self.context.is_main else None)
        self._files = [os.open(self.folder / name, os.O_RDWR) for name in ("tokens.bin", "done.bin")]
        return pending

    def _begin(self, wanted: Sequence[Key]) -> list[int]:
        self._lock = lock_folder(self.folder, f"{self.folder}", "name another folder (--output)")
        about = json.dumps(
            {"metadata": self.metadata, "shape": self.shape, "rows": [list(key) for key in wanted]}
        )
        said, tokens, done = (self.folder / name for name in ("tokens.json", "tokens.bin", "done.bin"))
        sizes = {tokens: len(wanted) * self.row_bytes, done: len(wanted)}
        whole = all(file.is_file() and file.stat().st_size == size for file, size in sizes.items())
        if not (whole and said.exists() and said.read_text() == about):
            for file in (said, tokens, done):
                file.unlink(missing_ok=True)
            self._check_room(len(wanted))
            try:
                tokens.touch()
                os.truncate(tokens, len(wanted) * self.row_bytes)
                done.write_bytes(bytes(len(wanted)))
            except OSError as error:
                raise WriteError.of(tokens, error) from error
            write_text(about, said)
        made = np.fromfile(done, dtype=np.uint8)
        return [i for i in dict.fromkeys(self._places) if not made[i]]

    def _check_room(self, rows: int) -> None:
        needed, free = rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise RunError(
                f"all tokens of {counted(rows, 'videos')} take {needed / GB:.1f} GB, "
                f"{self.row_bytes / 1e6:.1f} MB each; {self.folder} has {free / GB:.1f} GB free. Name a "
                "folder on another disk (--output), or take fewer frames (--set num_frames=4)"
            )

    def add(self, rows: FeatureTable) -> None:
        """Write finished rows, with their column "tokens" [R, *shape]. Raises WriteError, FloatingPointError
        where float16 cannot hold them."""
        tokens = rows.columns["tokens"].astype(np.float16)
        if not np.isfinite(tokens).all():
            raise FloatingPointError(
                f"tokens of {rows.columns['path'][0]} or of those read with it exceed float16"
            )
        places = [self._row[key] for key in row_keys(rows)]
        data, done = self._files
        try:
            for place, row in zip(places, tokens, strict=True):
                os.pwrite(data, row.tobytes(), place * self.row_bytes)
            os.fsync(data)  # before they count
            for place in places:
                os.pwrite(done, b"\1", place)
        except OSError as error:
            raise WriteError.of(self.folder / "tokens.bin", error) from error

    def finish(self, failed: Collection[int] = ()) -> None:
        """Wait for all processes, and see that every row is there but the `failed` ones. Raises RunError."""
        self.context.barrier()
        made = np.fromfile(self.folder / "done.bin", dtype=np.uint8)
        lost = [i for i, place in enumerate(self._places) if not made[place] and i not in failed]
        if lost:
            raise RunError(
                f"{counted(len(lost), 'videos')} that this run has embedded are not in {self.folder}"
            )

    def read(self, rows: Sequence[int]) -> Tensor:
        """The tokens of rows, by their places among those wanted, float32 [R, *shape]."""
        tokens = np.memmap(
            self.folder / "tokens.bin", np.float16, "r", shape=(len(self._places), *self.shape)
        )
        return torch.from_numpy(np.stack([tokens[self._places[row]] for row in rows]).astype(np.float32))
