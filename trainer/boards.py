"""Where a run's curves can be watched: TensorBoard and Weights & Biases, each if the config asks for it."""

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from utils.config import as_dict
from utils.schema import PretrainingConfig

logger = logging.getLogger(__name__)


class Board(Protocol):
    """Takes rows of numbers by step."""

    def write(self, kind: str, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Boards:
    """The boards that `trainer.tensorboard` and `trainer.wandb` ask for, going on behind `global_step`.

    One that fails, when it is opened or later, is given up with a warning: no reason to end a training.
    """

    def __init__(self, run_dir: Path, config: PretrainingConfig, global_step: int):
        self.open: dict[str, Board] = {}
        if config.trainer.tensorboard:
            with self._giving_up("tensorboard"):
                self.open["tensorboard"] = TensorBoard(run_dir, global_step)
        if config.trainer.wandb:
            with self._giving_up("wandb"):
                self.open["wandb"] = Wandb(run_dir, config)

    def write(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for name, board in list(self.open.items()):
            with self._giving_up(name):
                for row in rows:
                    board.write(kind, row)

    def close(self) -> None:
        for name, board in list(self.open.items()):
            with self._giving_up(name):
                board.close()

    @contextmanager
    def _giving_up(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 (some of wandb's own have no nearer base)
            logger.warning("trainer.%s is given up for this run: %s: %s", name, type(error).__name__, error)
            self.open.pop(name, None)


class TensorBoard:
    """Scalars in `run_dir`/tensorboard; those that an interrupted run wrote too many are hidden."""

    def __init__(self, run_dir: Path, global_step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only some runs need it

        self.writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=global_step + 1)

    def write(self, kind: str, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row).items():
            self.writer.add_scalar(f"{kind}/{name}", value, row["step"])

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run of the project `trainer.wandb`, the same one after resuming; its files lie in `run_dir`/wandb.

    wandb's own environment variables (WANDB_ENTITY, WANDB_MODE=offline …) say the rest.
    """

    def __init__(self, run_dir: Path, config: PretrainingConfig):
        wandb = import_wandb()
        known = run_dir / "wandb-id.txt"
        if not known.is_file():
            known.write_text(uuid.uuid4().hex[:8])
        self.run = wandb.init(
            project=config.trainer.wandb,
            name=config.name,
            id=known.read_text(),
            resume="allow",
            dir=str(run_dir),
            config=as_dict(config),
        )
        # wandb's own count of steps cannot go back, as a run does that goes on from its last checkpoint
        self.run.define_metric("*", step_metric="step")

    def write(self, kind: str, row: Mapping[str, Any]) -> None:
        named = {f"{kind}/{name}": value for name, value in scalars(row).items()}
        self.run.log({"step": row["step"], **named})

    def close(self) -> None:
        self.run.finish()


def import_wandb() -> Any:
    """The package wandb; not one of the requirements.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import wandb

        wandb.init  # noqa: B018 (a folder "wandb" of earlier runs looks like an empty package)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            "trainer.wandb is set, but wandb is not installed: pip install wandb, or --set trainer.wandb=null"
        ) from error
    return wandb


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row."""
    return {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
