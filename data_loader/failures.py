"""Videos that cannot be read: what is said of one, what replaces it in training, how many stop a run.

A broken disk or a wrong path should stop a run instead of spoiling it.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from data_loader.video.base import VideoReadError
from utils.errors import RunError

logger = logging.getLogger(__name__)

TRIES = 10  # samples tried in training before giving up: one broken file is chance, ten in a row are not


class Failure(NamedTuple):
    """A file that cannot be read, and why: what becomes of it is up to the one who asked for it."""

    path: str
    reason: str

    @classmethod
    def of(cls, error: VideoReadError) -> "Failure":
        return cls(str(error.path), error.reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def sample_or_replacement(
    read: Callable[[int], dict[str, Any]], index: int, count: int, rng: np.random.Generator, name: str
) -> dict[str, Any]:
    """The training sample `index` of `count`, or where its file cannot be read another one, drawn by `rng`.

    read: from an index to a sample. name: of the data set, and where its videos lie.

    Returns the sample with "failures", the files that it replaces. Raises RuntimeError after TRIES of them.
    """
    failures: list[Failure] = []
    for _ in range(TRIES):
        try:
            return {**read(index), "failures": failures}
        except VideoReadError as error:
            failures.append(Failure.of(error))
            step = rng.integers(1, max(2, count))  # to any other sample
            index = int(index + step) % count
    listed = "\n".join(f"  {failure}" for failure in failures)
    raise RuntimeError(
        f"{TRIES} videos in a row of {name} cannot be read; is that the right folder?\n{listed}\n"
        "python -m data_loader.check CONFIG lists all unreadable files."
    )


class TooManyUnreadable(RunError):
    """More videos than the limit allows cannot be read."""


class UnreadableCounter:
    """Counts the failures of the batches of one epoch, logs each file once, and stops a run above a limit.

    `max_fraction` of the videos tried may be unreadable. The share is checked once `min_tried` have been, as
    the first broken file of a run says little, and when an epoch ends.
    """

    def __init__(self, max_fraction: float = 0.01, min_tried: int = 300):
        self.max_fraction, self.min_tried = max_fraction, min_tried
        self.files: dict[str, str] = {}  # file -> reason, of the whole run
        self.start_epoch()

    def start_epoch(self) -> None:
        """Count anew; files logged before are not logged again."""
        self.read, self.failed = 0, 0
        self.by_set: dict[str, tuple[int, int]] = {}  # tried and failed
        self.problems: Counter[str] = Counter()

    @property
    def fraction(self) -> float:
        return self.failed / max(1, self.read + self.failed)

    def update(self, batch: dict, name: str = "") -> None:
        """Count a batch of `Collate` of the set `name`, and name the files that failed for the first time."""
        read, failed = len(batch["index"]), len(batch["failures"])
        self.read, self.failed = self.read + read, self.failed + failed
        tried_before, failed_before = self.by_set.get(name, (0, 0))
        self.by_set[name] = tried_before + read + failed, failed_before + failed
        self.problems.update(batch.get("problems", ()))
        for path, reason in batch["failures"]:
            if path not in self.files:
                self.files[path] = reason
                logger.warning("unreadable, another sample takes its place: %s (%s)", path, reason)

    def raise_if_too_many(self, read: int, failed: int, epoch_over: bool = False) -> None:
        """Stop the run if too many of the videos tried so far in this epoch, on all ranks, failed.

        Every rank is to call this with the same counts, the sums of the ranks' `read` and `failed`, so that
        all of them stop at the same step. Raises TooManyUnreadable, which names this rank's last files.
        """
        tried = read + failed
        if (tried < self.min_tried and not epoch_over) or failed <= self.max_fraction * tried:
            return
        listed = "\n".join(f"  {path}: {reason}" for path, reason in list(self.files.items())[-5:])
        raise TooManyUnreadable(
            f"{failed} of {tried} videos tried could not be read ({failed / tried:.2%}), more than "
            f"max_unreadable, {self.max_fraction:.2%}. The last ones:\n{listed}\n"
            "List them all with: python -m data_loader.check CONFIG"
        )

    def summary(self) -> str:
        """A line for the end of an epoch."""
        tried = self.read + self.failed
        line = f"{self.failed} of {tried} videos tried could not be read ({self.fraction:.2%})"
        if len(self.by_set) > 1:
            line += ", " + ", ".join(f"{name} {n} of {of}" for name, (of, n) in self.by_set.items())
        if self.problems:
            line += "; transcripts mended: " + ", ".join(f"{n} {p}" for p, n in self.problems.most_common())
        return line
