"""Counting unreadable videos, so that a broken disk or a wrong path stops a run instead of spoiling it."""

import logging
from collections import Counter

logger = logging.getLogger(__name__)


class TooManyUnreadable(RuntimeError):
    """More videos than the limit allows cannot be read."""


class UnreadableCounter:
    """Counts the failures of the batches of one epoch, logs each file once, and stops a run above a limit.

    `max_fraction` of the videos tried may be unreadable; judged once `min_tried` have been, as the first
    broken file of a run says little, and when an epoch ends.
    """

    def __init__(self, max_fraction: float = 0.01, min_tried: int = 300):
        self.max_fraction, self.min_tried = max_fraction, min_tried
        self.files: dict[str, str] = {}  # file -> reason, of the whole run
        self.start_epoch()

    def start_epoch(self) -> None:
        """Count anew; files logged before are not logged again."""
        self.read, self.failed = 0, 0
        self.problems: Counter[str] = Counter()

    @property
    def fraction(self) -> float:
        return self.failed / max(1, self.read + self.failed)

    def update(self, batch: dict) -> None:
        """Count a batch of `Collate`. Raises TooManyUnreadable above the limit."""
        self.read += len(batch["index"])
        self.failed += len(batch["failures"])
        self.problems.update(batch.get("problems", ()))
        for path, reason in batch["failures"]:
            if path not in self.files:
                self.files[path] = reason
                logger.warning("unreadable, another sample takes its place: %s (%s)", path, reason)
        if self.read + self.failed >= self.min_tried:
            self.check()

    def end_epoch(self) -> None:
        """Judge the epoch, however short, and count anew. Raises TooManyUnreadable above the limit."""
        self.check()
        self.start_epoch()

    def check(self) -> None:
        """Raises TooManyUnreadable above the limit, naming the last files."""
        if self.fraction > self.max_fraction:
            listed = "\n".join(f"  {path}: {reason}" for path, reason in list(self.files.items())[-5:])
            raise TooManyUnreadable(
                f"{self.summary()}; more than max_unreadable, {self.max_fraction:.2%}. The last ones:\n"
                f"{listed}\nList them all with: python -m data_loader.check CONFIG"
            )

    def summary(self) -> str:
        """A line for the end of an epoch."""
        tried = self.read + self.failed
        line = f"{self.failed} of {tried} videos tried could not be read ({self.fraction:.2%})"
        if self.problems:
            line += "; transcripts mended: " + ", ".join(f"{n} {p}" for p, n in self.problems.most_common())
        return line
