"""The optimiser's groups against the rule written out plainly, and the learning rate over time."""

import warnings

import pytest
import torch
from transformers import SchedulerType

from model import create_model, is_new_parameter
from trainer.optim import (
    NOT_BY_STEPS,
    build_optimizer,
    build_scheduler,
    describe_groups,
    parameter_groups,
    resume_scheduler,
)
from utils.schema import OptimizerConfig, SchedulerConfig

SETTINGS = OptimizerConfig()


def test_each_trained_parameter_is_in_the_group_of_the_official_rule():
    model = create_model("TVTSv2_Demo", trained_text_blocks=1)
    groups = parameter_groups(model, is_new_parameter, SETTINGS)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = set()
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            in_a_clip_tower = not name.startswith("pred_model.")
            new = not in_a_clip_tower or ("video_model" in name and ("timeattn" in name or "ln_3" in name))
            plain = any(word in name for word in ("bias", "ln_", "norm", "LayerNorm"))
            assert group["lr"] == (1e-4 if new else 1e-7), name
            assert group["weight_decay"] == (0.0 if plain else 0.05), name
    frozen = {
        n for n in names.values() if n.startswith(("text_model.resblocks.0.", "text_model.resblocks.1."))
    }
    assert seen == set(names.values()) - frozen
    assert len(groups) == 4


def test_description_counts_every_trained_parameter():
    model = create_model("TVTSv2_Demo")
    text = describe_groups(parameter_groups(model, is_new_parameter, SETTINGS))
    counted = sum(int(line.split()[-2].replace(",", "")) for line in text.splitlines())
    assert counted == sum(p.numel() for p in model.parameters())


def frozen_run(settings: dict, steps: int) -> list[float]:
    """The learning rate at each of `steps` steps, 10 steps an epoch."""
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], SETTINGS)
    scheduler = build_scheduler(optimizer, SchedulerConfig(**settings), steps_per_epoch=10, total_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def test_milestones_fall_after_their_epochs():
    rates = frozen_run({"type": "milestones", "milestones": [6, 8], "gamma": 0.1, "warmup_steps": 0}, 100)
    assert rates[:60] == [1.0] * 60
    assert rates[60:80] == pytest.approx([0.1] * 20)
    assert rates[80:] == pytest.approx([0.01] * 20)


def test_other_schedules_come_from_transformers():
    rates = frozen_run({"type": "cosine", "milestones": [], "gamma": 0.1, "warmup_steps": 10}, 100)
    assert rates[0] == 0
    assert max(rates) == 1.0
    assert rates[10] == 1.0
    assert rates[-1] < 0.01


def test_a_schedule_that_goes_on_is_where_it_was_and_says_nothing_of_torchs():
    settings = SchedulerConfig(type="cosine", warmup_steps=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    whole = build_scheduler(optimizer, settings, 5, 20)
    for _ in range(7):
        optimizer.step()
        whole.step()
    again = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = resume_scheduler(again, settings, 5, (7, 20), (7, 20))
    assert resumed.get_last_lr() == whole.get_last_lr()


def test_options_reach_the_schedule_and_wrong_ones_are_named():
    settings = {"type": "cosine_with_min_lr", "warmup_steps": 0, "options": {"min_lr": 2.5e-5}}
    assert frozen_run(settings, 100)[-1] == pytest.approx(0.25, abs=1e-3)  # of new_lr, which is 1e-4
    with pytest.raises(ValueError, match=r"'linear' does not go with options \{'speed': 3\}"):
        frozen_run({"type": "linear", "warmup_steps": 0, "options": {"speed": 3}}, 10)
    with pytest.raises(ValueError, match="'warmup_stable_decay' does not go with"):
        frozen_run({"type": "warmup_stable_decay", "warmup_steps": 0}, 10)


@pytest.mark.parametrize("kind", [k.value for k in SchedulerType if k.value not in NOT_BY_STEPS])
def test_every_schedule_of_transformers_that_follows_the_steps_runs(kind):
    options = {"warmup_stable_decay": {"num_decay_steps": 3}, "cosine_with_min_lr": {"min_lr": 1e-5}}
    options["cosine_warmup_with_min_lr"] = options["cosine_with_min_lr"]
    rates = frozen_run({"type": kind, "warmup_steps": 2, "options": options.get(kind, {})}, 10)
    assert max(rates) == pytest.approx(1.0)
    assert min(rates) >= 0


def test_unknown_schedule_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'cosin'.*milestones.*cosine"):
        frozen_run({"type": "cosin", "warmup_steps": 0}, 10)
