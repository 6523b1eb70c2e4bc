import math

import pytest
import torch

from model.loss import NormSoftmaxLoss, contrastive_loss, gather_batch, sort_loss


def test_contrastive_loss_is_the_sum_of_both_directions():
    sims = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    logits = sims / 0.05
    want = -logits.log_softmax(1).diagonal().mean() - logits.log_softmax(0).diagonal().mean()
    assert NormSoftmaxLoss()(sims).item() == pytest.approx(want.item(), rel=1e-5)


def test_losses_are_float32_and_finite_for_half_precision():
    assert NormSoftmaxLoss()(torch.eye(3, dtype=torch.float16) * 100).dtype == torch.float32
    assert sort_loss(torch.zeros(2, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_sort_loss_is_twice_the_cross_entropy_of_the_true_places():
    assert sort_loss(torch.zeros(3, 4, 4)).item() == pytest.approx(2 * math.log(4))
    assert sort_loss(100 * torch.eye(4).repeat(3, 1, 1)).item() == pytest.approx(0)
    assert sort_loss(torch.zeros(3, 4, 4), weight=0.5).item() == pytest.approx(0.5 * math.log(4))


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="square"):
        NormSoftmaxLoss()(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="temperature"):
        NormSoftmaxLoss(0)


def test_one_process_gathers_nothing():
    x = torch.ones(2, 3, requires_grad=True)
    assert gather_batch([x], "exact")[0] is x
    losses = [contrastive_loss(torch.eye(3), torch.eye(3), 0.05, mode) for mode in ("official", "lean")]
    assert losses[0] == losses[1]
