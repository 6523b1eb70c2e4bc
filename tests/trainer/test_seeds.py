"""What a seed decides: ranks, workers and epochs draw differently, and the same seed draws the same."""

import pytest
import torch

from data_loader.build import build_loaders
from model import create_model
from utils.config import load_config
from utils.processes import DistContext
from utils.schema import PretrainingConfig


@pytest.fixture
def draws(arguments):
    """The frames and masks of the training batches of some epochs, by (epoch, rank, data set, sample)."""
    model = create_model("TVTSv2_Demo")

    def draw(seed: int = 0, workers: int = 0, ranks: int = 2, epochs: int = 2) -> dict:
        _, path, *sets = arguments(seed=seed, data__num_workers=workers)
        config = load_config(PretrainingConfig, path, sets[1::2])
        drawn = {}
        for rank in range(ranks):
            context = DistContext(rank, ranks, rank, torch.device("cpu"))
            loader, _ = build_loaders(config, model, context)
            for epoch in range(epochs):
                loader.set_epoch(epoch)
                for i, batch in loader:
                    for k, index in enumerate(batch["index"].tolist()):
                        drawn[epoch, rank, i, index] = batch["video"][k], batch["keep_ind"][k]
        return drawn

    return draw


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, y) for k in a for x, y in zip(a[k], b[k], strict=True))


def test_ranks_epochs_and_samples_draw_different_masks_and_frames(draws):
    drawn = draws()
    masks = [tuple(mask.tolist()) for _, mask in drawn.values()]
    assert len(set(masks)) > 0.9 * len(masks)  # 8 of 16 patches: now and then two are alike by chance
    both = [
        (drawn[epoch, rank, i, index][0], video)
        for (later, rank, i, index), (video, _) in drawn.items()
        for epoch in range(later)
        if (epoch, rank, i, index) in drawn
    ]
    assert both  # samples that a rank sees in both epochs
    assert not any(torch.equal(first, second) for first, second in both)
    shares = [{key[2:] for key in drawn if key[:2] == (0, rank)} for rank in (0, 1)]
    assert not {key for key in shares[0] & shares[1] if key[0] == 0}  # no sample is seen by both ranks


def test_a_seed_decides_all_of_it_whatever_the_workers(draws):
    drawn = draws()
    assert same(drawn, draws(workers=2))
    assert not same(drawn, draws(seed=1))
