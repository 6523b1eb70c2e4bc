"""The two losses of pre-training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormSoftmaxLoss(nn.Module):
    """Contrastive loss over cosine similarities: the SUM of both directions' mean cross-entropies.

    As in Frozen in Time, from whose code the official release descends.
    """

    def __init__(self, temperature: float = 0.05):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, sims: Tensor) -> Tensor:
        """sims [V, T] with V = T, row i and column i belonging together -> scalar, in float32."""
        if sims.ndim != 2 or sims.shape[0] != sims.shape[1]:
            raise ValueError(f"sims must be square, one text a video; got shape {list(sims.shape)}")
        logits = sims.float() / self.temperature
        labels = torch.arange(len(logits), device=logits.device)
        return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)


def sort_loss(order_logits: Tensor, weight: float = 2.0) -> Tensor:
    """order_logits [B, K, K] of texts given in their true order -> `weight` times the mean cross-entropy."""
    B, K, _ = order_logits.shape
    labels = torch.arange(K, device=order_logits.device).repeat(B)
    return weight * F.cross_entropy(order_logits.flatten(0, 1).float(), labels)
