"""Boards to watch a run's curves on: TensorBoard and Weights & Biases."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from trainer.pictures import Picture
from utils.config import as_dict
from utils.schema import PretrainingConfig


class Board(Protocol):
    """Takes numbers, and pictures, by names such as "step/loss", that belong to a step."""

    def write(self, numbers: Mapping[str, float], step: int) -> None: ...

    def show(self, name: str, picture: Picture, step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Writes to `run_dir`/tensorboard; what an interrupted run wrote too much is hidden."""

    def __init__(self, run_dir: Path, global_step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only some runs need it

        self.writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=global_step + 1)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def show(self, name: str, picture: Picture, step: int) -> None:
        self.writer.add_image(name, picture.pixels, step)
        self.writer.add_text(name, picture.words, step)

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run of the project `trainer.wandb`, the same one after resuming; its files are in `run_dir`/wandb.

    wandb's own environment variables (WANDB_ENTITY, WANDB_MODE=offline …) decide the rest.
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

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log({"step": step, **numbers})

    def show(self, name: str, picture: Picture, step: int) -> None:
        image = import_wandb().Image(picture.pixels.transpose(1, 2, 0), caption=picture.words)
        self.run.log({"step": step, name: image})

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
