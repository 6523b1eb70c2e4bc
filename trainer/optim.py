"""The optimiser's four groups of parameters, and learning rates over time."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from model.class_head import PREFIX as CLASS_HEAD
from utils.schema import OptimizerConfig, SchedulerConfig
from utils.text import counted

# Transformers' schedules that follow a metric, not the steps.
NOT_BY_STEPS = ("reduce_lr_on_plateau", "greedy")
NO_DECAY = ("bias", "ln_", "norm", "LayerNorm")
# What a person may change between two parts of a run: the config decides, not the checkpoint.
# How the names of a tower's parameters begin, those below its first block, and those of the blocks.
TOWERS = {
    "video_model.": (
        r"video_model\.(?:conv1|class_embedding|positional_embedding|temporal_embedding|ln_pre)",
        r"video_model\.transformer\.resblocks\.(\d+)\.",
    ),
    "text_": (r"text_(?:token|positional)_embedding", r"text_model\.resblocks\.(\d+)\."),
}
SETTINGS_OF_A_GROUP = ("lr", "initial_lr", "weight_decay", "betas", "eps")


def parameter_groups(
    model: nn.Module, is_new: Callable[[str], bool], settings: OptimizerConfig
) -> list[dict[str, Any]]:
    """Split the trained parameters by learning rate (new or from CLIP) and weight decay, as the release does.

    A class head has a rate of its own; with a `layer_decay` below 1, so has each layer of the towers.

    Args:
        is_new: whether a parameter of this name has no source in CLIP.
        settings: `optimizer` of the config: new_lr, clip_lr, head_lr, layer_decay, weight_decay.

    Returns:
        Groups for an optimiser, each with a "name"; empty ones are left out.
    """
    groups: dict[tuple[str, int], dict[str, Any]] = {}
    rates = {"new": settings.new_lr, "clip": settings.clip_lr, "head": settings.head_lr}
    below = layers_below_the_top(model) if settings.layer_decay < 1 else {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        origin = "head" if name.startswith(CLASS_HEAD) else "new" if is_new(name) else "clip"
        decays = not any(part in name for part in NO_DECAY)
        key, depth = f"{origin}, {'decay' if decays else 'no decay'}", below.get(name, 0)
        group = groups.setdefault(
            (key, -depth),
            {
                "name": f"{key}, {counted(depth, 'layers')} down" if depth else key,
                "lr": rates[origin] * settings.layer_decay**depth,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "params": [],
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups, reverse=True)]


def layers_below_the_top(model: nn.Module) -> dict[str, int]:
    """How many layers of its tower are above each parameter; none above the projections.

    A layer is a block, the embeddings below the first, or the norm and projection above the last; each tower
    is counted from its own top. What is in no tower is not named.
    """
    depths: dict[str, int] = {}
    for tower, (stem, blocks) in TOWERS.items():
        layers = group_parameters(model, {"stem": stem, "blocks": blocks}, reverse=True)
        top = max(layers.values())
        depths |= {name: top - layer for name, layer in layers.items() if name.startswith(tower)}
    return depths


@contextmanager
def keeping_settings(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A checkpoint loaded within fills the moments alone: learning rates, decay, betas and eps stay as set.

    Learning rates become the initial ones, from which a schedule starts.
    """
    before = [{key: group[key] for key in SETTINGS_OF_A_GROUP} for group in optimizer.param_groups]
    yield
    for group, settings in zip(optimizer.param_groups, before, strict=True):
        group.update(settings)
        group["lr"] = settings["initial_lr"]


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The current learning rates by origin of the parameters, of the top layers: "lr_new", "lr_clip" and,
    with a class head, "lr_head"."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        name = f"lr_{group['name'].partition(',')[0]}"
        rates[name] = max(group["lr"], rates.get(name, 0.0))
    return rates


def describe_groups(groups: list[dict[str, Any]]) -> str:
    """One line a group: learning rate, decay, how many tensors and parameters it holds."""
    lines, longest = [], max(15, *(len(group["name"]) for group in groups))
    for group in groups:
        tensors, count = len(group["params"]), sum(p.numel() for p in group["params"])
        lines.append(
            f"  {group['name']:<{longest}} lr {group['lr']:.1e}  decay {group['weight_decay']:<5} "
            f"{tensors:4d} tensors  {count:>13,} parameters"
        )
    return "\n".join(lines)


def build_optimizer(groups: list[dict[str, Any]], settings: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the groups, in one fused launch.

    The release uses transformers 4.10's AdamW, which adds eps before the bias correction and decays after
    the update; PyTorch's differs from it by rounding-sized amounts once the first steps are over.
    """
    return torch.optim.AdamW(
        groups,
        lr=settings.new_lr,  # every group has its own; schedules with a lowest rate compare it with this
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: SchedulerConfig, steps_per_epoch: int, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """A learning rate schedule that steps once an optimiser step.

    Args:
        settings: `lr_scheduler` of the config. Type "milestones" multiplies by `gamma` after each of the
            epochs in `milestones`, as the release does; any other type is a name of transformers' schedules
            ("cosine", "linear", "cosine_with_min_lr" …), with `options` of its own, such as {"min_lr": 1e-6}.
            All rise linearly over `warmup_steps` first.

    Raises:
        ValueError: transformers knows no schedule of that name, or it does not take or lacks an option.
    """
    warmup = settings.warmup_steps
    if settings.type == "milestones":

        def factor(step: int) -> float:
            passed = sum(step >= m * steps_per_epoch for m in settings.milestones)
            return settings.gamma**passed * min(1.0, (step + 1) / (warmup + 1))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    from transformers import SchedulerType, get_scheduler  # slow to import, and only some runs need it

    names = [kind.value for kind in SchedulerType if kind.value not in NOT_BY_STEPS]
    if settings.type not in names:
        raise ValueError(f"lr_scheduler.type is {settings.type!r}; known: milestones, {', '.join(names)}")
    try:
        return get_scheduler(
            settings.type, optimizer, warmup, total_steps, scheduler_specific_kwargs=settings.options
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"lr_scheduler.type {settings.type!r} does not go with options {settings.options}: {error}"
        ) from error


def resume_scheduler(
    optimizer: torch.optim.Optimizer,
    settings: SchedulerConfig,
    steps_per_epoch: int,
    in_epochs: tuple[int, int],
    in_steps: tuple[int, int],
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of a run that goes on, where the epochs done, not the steps, put it.

    Another number of ranks, or another batch size, makes epochs of other lengths. Where `max_steps` ends the
    run before its epochs do, a schedule that ends with the run counts steps, as `max_steps` does: with a
    position in epochs it would be past its end too early, where a cosine rises again.

    Args:
        in_epochs: position and end if the run lasts all its epochs, both in steps of today's epochs.
        in_steps: steps taken, and those of the whole run.
    """
    (done, length), (step, total) = in_epochs, in_steps
    ends_early = total - step < length - done
    position, end = in_steps if ends_early and settings.type != "milestones" else in_epochs
    scheduler = build_scheduler(optimizer, settings, steps_per_epoch, end)
    scheduler.last_epoch = position - 1
    with warnings.catch_warnings():  # the optimiser has taken its steps, in a process before this one
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        scheduler.step()
    return scheduler
