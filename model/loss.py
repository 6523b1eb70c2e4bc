"""The two losses of pre-training, and the embeddings of all ranks gathered for the contrastive one."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .metric import sim_matrix

# PyTorch 2.14 has renamed both.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

Gather = Literal["official", "exact", "lean"]


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


def contrastive_loss(video: Tensor, text: Tensor, temperature: float, mode: Gather) -> Tensor:
    """The contrastive loss of the W ranks' samples together: the sum of both directions.

    Args:
        video, text: [B, D], this rank's embeddings, not normalised. Ranks need equal B.
        mode: the loss is the same in all, and is that of one process on the whole batch of W·B samples. The
            gradients are meant to be averaged over the ranks, as DDP and FSDP do. Then
            "official": 1/W of the true gradient, while that of the sorting loss is whole, as in the release;
            "exact": the true gradient, at any W;
            "lean": the same as "exact" from W times less memory and arithmetic in the similarities: a rank
                computes the rows and columns of its own samples alone, never the W·B × W·B matrix.

    Returns:
        A scalar in float32. Of "lean" it is this rank's share, and the mean over the ranks is the loss.
    """
    video, text = video.float(), text.float()
    if mode == "lean" and _world_size() > 1:
        return _own_rows_and_columns(video, text, temperature)
    video, text = gather_batch([video, text], mode)
    return NormSoftmaxLoss(temperature)(sim_matrix(video, text))


def gather_batch(tensors: Sequence[Tensor], mode: Gather) -> list[Tensor]:
    """Concatenate each [B, D] tensor over the W ranks to [W·B, D], with gradients. Ranks need equal B.

    A rank's slice gets the gradient of that rank's own loss alone when `mode` is "official", and the sum of
    the gradients of all ranks' losses otherwise.
    """
    if _world_size() == 1:
        return list(tensors)
    widths = [x.shape[1] for x in tensors]
    gathered = _Gather.apply(torch.cat(list(tensors), dim=1), mode != "official")  # one message, not several
    return list(gathered.split(widths, dim=1))


def _own_rows_and_columns(video: Tensor, text: Tensor, temperature: float) -> Tensor:
    B = len(video)
    all_video, all_text = gather_batch([video, text], "lean")
    labels = dist.get_rank() * B + torch.arange(B, device=video.device)
    v2t = sim_matrix(video, all_text) / temperature  # [B, W·B]
    t2v = sim_matrix(text, all_video) / temperature
    return F.cross_entropy(v2t, labels) + F.cross_entropy(t2v, labels)


class _Gather(torch.autograd.Function):
    """all_gather with a gradient: of this rank's own loss only, or summed over the losses of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sum_gradients: bool) -> Tensor:
        ctx.batch, ctx.sum_gradients = len(x), sum_gradients
        gathered = x.new_empty(_world_size() * len(x), *x.shape[1:])
        all_gather(gathered, x.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if not ctx.sum_gradients:
            return grad[dist.get_rank() * ctx.batch :][: ctx.batch], None
        own = grad.new_empty(ctx.batch, *grad.shape[1:])
        reduce_scatter(own, grad.contiguous())
        return own, None


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
