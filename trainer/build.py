"""From a config to a trainer that is ready to run."""

import torch

from data_loader.build import build_loaders
from model.build import build_model, load_starting_weights
from trainer.boards import import_wandb
from trainer.checkpoints import list_checkpoints, prepare_folder
from trainer.run_log import setup_logging
from trainer.trainer import Trainer
from utils.config import output_path
from utils.processes import DistContext
from utils.schema import PretrainingConfig


def build_trainer(config: PretrainingConfig, context: DistContext, resume: str | None = None) -> Trainer:
    """Build everything that a run needs.

    Args:
        config: a resolved pre-training config.
        resume: a checkpoint's path, "auto", or None for a run that must not overwrite an earlier one.

    Raises:
        ConfigError: a value of the config cannot be used.
        FileExistsError: the run's folder holds checkpoints already and `resume` is None.
        FileNotFoundError: starting weights or data are missing; the message says where they go.
        RunError: another training is writing to the run's folder.
        WriteError: the run's folder cannot be written.
    """
    run_dir = output_path(config.trainer.save_dir) / config.name
    lock = None
    if context.is_main:
        lock = prepare_folder(run_dir)
        if config.trainer.wandb:
            import_wandb()  # said before the training if it is missing
    setup_logging(run_dir, context.is_main)
    if resume is None and list_checkpoints(run_dir):
        raise FileExistsError(
            f"{run_dir} holds the checkpoints of an earlier run: go on with --resume auto, or give this run "
            "another name (--set name=…)"
        )
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    torch.manual_seed(config.seed)
    model = build_model(config.arch, starting_weights=resume is None)
    train_loader, val_loaders = build_loaders(config, model, context)
    trainer = Trainer(config, model, train_loader, val_loaders, run_dir, context)
    trainer.lock = lock
    if resume is not None:
        resumed = trainer.resume(resume)
        if resumed is None:
            load_starting_weights(trainer.model, config.arch)
    return trainer
