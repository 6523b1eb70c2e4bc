"""Pre-train a TVTSv2, or fine-tune one (docs/finetune.md), as a config says.

Without torchrun it is one process. Any config key can be set from the command line; `docs/config.md` lists
them all.

    python train.py --config configs/dist-yt-web-pt-vit-b-16.json
    torchrun --nproc_per_node 8 train.py --config configs/dist-yt-web-pt-vit-b-16.json
    python train.py --config configs/demo.json --set trainer.epochs=3 --set data.batch_size=8
    python train.py --config configs/demo.json --resume auto

Exit status: 0 done, 1 something stopped the run (a full disk, a loss that is NaN), 2 a mistake to correct
before training, 3 stopped by a signal after saving.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

# Set before PyTorch is imported: where cores are shared, threads that spin while waiting slow each other down
# several times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from CLIP import tokenize
from data_loader.build import build_loaders, classes_of
from downstream.prompts import prompt_templates
from model import TVTSv2
from model.build import build_model
from model.class_head import ClassHead
from trainer.alike import check_data, check_settings, check_weights
from trainer.boards import import_wandb
from trainer.bucket import Bucket
from trainer.checkpoint import list_checkpoints, prepare_folder
from trainer.metrics import setup_logging
from trainer.profiling import leave_traces
from trainer.resume import choose, was_restarted
from trainer.resume import resume as go_on
from trainer.signals import Stopped
from trainer.trainer import Trainer
from utils.commands import CommandParser, add_overrides
from utils.config import ConfigError, load_config, output_path
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.processes import DistContext, explain_lost_peers, leaving_group, setup
from utils.schema import PretrainingConfig


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("python train.py", __doc__)
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="a JSON file of configs/")
    parser.add_argument(
        "-r",
        "--resume",
        metavar="FILE|auto",
        help="go on from a checkpoint; 'auto' takes the newest whole one of this run, if any",
    )
    parser.add_argument(
        "-d",
        "--device",
        help="cpu, cuda, cuda:1, or the numbers of the GPUs to use on this machine, one a process: 0,1 "
        "(default: process k takes GPU k, or the CPU where there is no GPU)",
    )
    short = parser.add_argument_group("keys of the config by their official names")
    short.add_argument(
        "-sc",
        "--schedule",
        type=int,
        nargs="*",
        metavar="EPOCH",
        help="epochs after which the learning rate falls tenfold (official: 6 8)",
    )
    short.add_argument("-lr", "--learning_rate", type=float, help="learning rate of the new parameters")
    short.add_argument("-bs", "--batch_size", type=int, help="samples a process and step")
    parser.add_argument(
        "--profile",
        type=int,
        nargs="?",
        const=4,
        metavar="STEPS",
        help="profile so many steps (4) of process 0 into the run's folder: times, and on a GPU memory",
    )
    add_overrides(parser, "override a config key")
    return parser.parse_args(argv)


def overrides_of(args: argparse.Namespace) -> list[str]:
    """The short flags of the official release as overrides of config keys; --set comes last and wins."""
    short = {
        "trainer.device": args.device,
        "lr_scheduler.milestones": args.schedule,
        "optimizer.new_lr": args.learning_rate,
        "data.batch_size": args.batch_size,
        "trainer.profile_steps": args.profile,
    }
    given = {key: json.dumps(value) for key, value in short.items() if value is not None}
    return [f"{key}={value}" for key, value in given.items()] + args.overrides


def build_trainer(config: PretrainingConfig, context: DistContext, resume: str | None = None) -> Trainer:
    """Everything that a run needs, ready to train.

    Args:
        config: a resolved pre-training config.
        resume: a checkpoint's path, "auto", or None for a run that must not overwrite an earlier one. A run
            that torchrun has restarted goes on from its own newest one.

    Raises:
        ConfigError: a value of the config cannot be used, or not all processes were started alike.
        FileExistsError: the run's folder holds checkpoints already and `resume` is None.
        FileNotFoundError: starting weights or data are missing; the message says where they go.
        RunError: another training is writing to the run's folder.
        WriteError: the run's folder cannot be written.
    """
    check_settings(config, resume, context)
    run_dir = output_path(config.trainer.save_dir) / config.name
    lock = prepare_folder(run_dir) if context.is_main else None
    if context.is_main and config.trainer.wandb:
        import_wandb()  # if it is missing, the training need not begin
    url = config.trainer.bucket
    bucket = None
    if url and context.is_main:
        bucket = Bucket(url, run_dir, config.name, config.trainer.keep_last)
    if bucket is not None and resume == "auto":
        bucket.fetch_newest()  # and the log of before, to go on with
    setup_logging(run_dir, context.is_main)
    if was_restarted(run_dir, context):
        resume = "auto"
    taken = run_dir if list_checkpoints(run_dir) else bucket and bucket.checkpoints() and bucket.url
    if resume is None and taken:
        raise FileExistsError(
            f"{taken} holds the checkpoints of an earlier run: go on with --resume auto, or give this run "
            "another name (--set name=…)"
        )
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    torch.manual_seed(config.seed)
    checkpoint = choose(run_dir, resume, context, bucket)
    model = build_model(config.arch, starting_weights=checkpoint is None)
    if checkpoint is None:
        check_weights(dict(model.named_parameters()), context, "What arch.start_from names")
    train_loader, val_loaders = build_loaders(config, model, context)
    check_data(train_loader, val_loaders, context)
    if config.arch.class_head:
        model.head = ClassHead(model.variant.embed_dim, classes_of(train_loader, val_loaders))
        if checkpoint is None and config.arch.head_from_texts is not None:
            texts = class_texts(model, model.head.class_names, config.arch.head_from_texts)
            model.head.begin_at(texts, config.loss.temperature)
    trainer = Trainer(config, model, train_loader, val_loaders, run_dir, context, lock)
    trainer.writer.bucket = bucket
    if checkpoint is not None:
        go_on(trainer, checkpoint)
    return trainer


@torch.no_grad()
def class_texts(model: TVTSv2, names: Sequence[str], prompts: list[str] | str) -> torch.Tensor:
    """Embeddings [prompts, classes, D] of the classes' texts. Raises ConfigError: classes are numbers."""
    if all(name.isdecimal() for name in names):
        raise ConfigError(
            f"arch.head_from_texts: the classes are numbers, {names[0]} to {names[-1]}, which no text says; "
            "name them in a file, one a line (data.train.0.classes, data.val.0.classes)"
        )
    templates = prompt_templates(prompts)
    texts = tokenize([template.replace("{}", name) for template in templates for name in names])
    embeds = torch.cat([model.encode_text(part) for part in texts.split(256)])
    return embeds.unflatten(0, (len(templates), len(names)))


@one_line_interrupts("nothing was to be saved yet; the same command starts again")
def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says.

    Returns:
        The exit status: 0 done, 3 stopped by a signal after saving. SystemExit with 2 means a mistake to
        correct before training, with 1 that something stopped the run (a full disk, a loss that is NaN).
    """
    args = parse_args(argv)
    with user_errors(), explain_lost_peers():
        config = load_config(PretrainingConfig, args.config, overrides_of(args))
        leave_traces(output_path(config.trainer.save_dir) / config.name)
        context = setup(config.trainer.device, config.trainer.timeout_s)
        trainer = build_trainer(config, context, args.resume)
    with leaving_group():
        try:
            with run_errors(), explain_lost_peers():
                trainer.train()
        except Stopped as stopped:
            if context.is_main:
                print(stopped, file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    # `record` lets torchrun's summary show the error of the process that failed first.
    sys.exit(record(main)())
