"""Which checkpoint is the best, by a metric of validation."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from trainer.checkpoints import BEST_NAME, mark_best
from utils.files import RunWriteError, write_text

logger = logging.getLogger(__name__)


class Monitor:
    """Keeps `model_best.pth`, and beside it `model_best.json`, which says what made it the best.

    Args:
        text: "max" or "min" and the name of a metric, such as "max webvid_t2v_R1".
        run_dir: the run's folder; a best one there, by the same metric, is the one to beat.

    """

    def __init__(self, text: str, run_dir: Path):
        self.mode, _, self.name = text.partition(" ")
        self.note = run_dir / Path(BEST_NAME).with_suffix(".json").name

    @property
    def best(self) -> float | None:
        """The metric of the best checkpoint so far."""
        if not self.note.is_file():
            return None
        note = json.loads(self.note.read_text())
        return note["value"] if note["monitor"] == f"{self.mode} {self.name}" else None

    def judge(self, metrics: Mapping[str, float], checkpoint: Path) -> None:
        """Make `checkpoint` the best if its metric is better than that of all before."""
        if self.name not in metrics:
            logger.warning(
                "no best checkpoint: validation has no metric %r (trainer.monitor); it has %s",
                self.name,
                ", ".join(metrics),
            )
            return
        value, best = metrics[self.name], self.best
        if best is not None and not (value > best if self.mode == "max" else value < best):
            return
        mark_best(checkpoint)
        note = {"monitor": f"{self.mode} {self.name}", "value": value, "checkpoint": checkpoint.name}
        write_text(json.dumps(note) + "\n", self.note, RunWriteError)
        logger.info("best so far: %s, %s %.2f", checkpoint.name, self.name, value)
