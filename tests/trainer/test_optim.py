"""The optimiser's groups against the rule written out plainly, and the learning rate over time."""

import pytest
import torch

from model import create_model, is_new_parameter
from trainer.optim import build_optimizer, build_scheduler, describe_groups, parameter_groups

SETTINGS = {"new_lr": 1e-4, "clip_lr": 1e-7, "weight_decay": 0.05, "betas": [0.9, 0.999], "eps": 1e-6}


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
    scheduler = build_scheduler(optimizer, settings, steps_per_epoch=10, total_steps=steps)
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


def test_unknown_schedule_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'cosin'.*milestones.*cosine"):
        frozen_run({"type": "cosin", "warmup_steps": 0}, 10)
