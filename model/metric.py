"""Similarities, retrieval metrics and ordering accuracy.

Queries (captions) are grouped by video: of Q captions and V videos, captions v·Q/V .. (v+1)·Q/V - 1 are those
of video v. The protocol, ties included, is that of Frozen in Time and of Collaborative Experts before it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def sim_matrix(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Cosine similarities of a [M, D] and b [N, D] -> [M, N]. float32 even under autocast, norms >= eps."""
    with torch.autocast(a.device.type, enabled=False):
        a, b = (x if x.dtype == torch.float64 else x.float() for x in (a, b))
        return F.normalize(a, dim=-1, eps=eps) @ F.normalize(b, dim=-1, eps=eps).T


def t2v_metrics(sims, query_masks=None) -> dict[str, float]:
    """Text-to-video retrieval.

    Args:
        sims: [Q, V] similarities, array or tensor, Q a multiple of V.
        query_masks: optional [Q] (or any shape of Q elements), false for captions that do not exist.

    Returns:
        R1, R5, R10, R50 in percent, MedR and MeanR counted from 1, geometric_mean_R1-R5-R10.
        Ties are optimistic: only videos that are strictly more similar rank before the right one.
    """
    sims, mask = _checked(sims, query_masks)
    Q, V = sims.shape
    right = sims[np.arange(Q), np.arange(Q) // (Q // V)]
    ranks = (sims > right[:, None]).sum(axis=1)
    return _summary(ranks[mask])


def v2t_metrics(sims, query_masks=None) -> dict[str, float]:
    """Video-to-text retrieval: arguments and results as in t2v_metrics (sims is [Q, V] here too).

    A video counts with the best-ranked of its captions. Ties are averaged: a caption takes the middle of the
    ranks that its equals share. Masked captions are no candidates, and a video left without any is dropped.
    """
    sims, mask = _checked(sims, query_masks)
    Q, V = sims.shape
    own = np.arange(Q).reshape(V, Q // V)  # the captions of each video
    sims = np.where(mask[:, None], sims, -np.inf)
    best = sims[own, np.arange(V)[:, None]].max(axis=1)  # most similar is best ranked, ties and all
    ranks = (sims > best).sum(axis=0) + ((sims == best).sum(axis=0) - 1) / 2
    return _summary(ranks[mask[own].any(axis=1)])


def order_accuracy(order_logits: Tensor) -> float:
    """Share of samples [B, K, K] whose K texts are all put in their right place, 0 to 1."""
    right = order_logits.argmax(dim=-1) == torch.arange(order_logits.shape[1], device=order_logits.device)
    return right.all(dim=-1).float().mean().item()


def _checked(sims, query_masks) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(sims, Tensor):
        sims = sims.detach().cpu()
        sims = (sims if sims.dtype == torch.float64 else sims.float()).numpy()
    sims = np.asarray(sims)
    if sims.ndim != 2 or not sims.size or sims.shape[0] % sims.shape[1]:
        raise ValueError(
            f"sims must be [captions, videos], captions a multiple of videos; got shape {list(sims.shape)}"
        )
    if np.isnan(sims).any():
        raise ValueError("sims holds NaN; ranks would be meaningless. Look for NaN in the embeddings")
    if query_masks is None:
        return sims, np.ones(len(sims), dtype=bool)
    if isinstance(query_masks, Tensor):
        query_masks = query_masks.cpu().numpy()
    mask = np.asarray(query_masks).reshape(-1).astype(bool)
    if len(mask) != len(sims) or not mask.any():
        raise ValueError(
            f"query_masks must name at least one of {len(sims)} captions; got {mask.sum()} of {len(mask)}"
        )
    return sims, mask


def _summary(ranks: np.ndarray) -> dict[str, float]:
    """Metrics of 0-based ranks."""
    recall = {"R1": 100.0 * float((ranks == 0).mean())}  # an averaged rank of 0.5 is no hit
    recall |= {f"R{k}": 100.0 * float((ranks < k).mean()) for k in (5, 10, 50)}
    return {
        **recall,
        "MedR": float(np.median(ranks)) + 1,
        "MeanR": float(ranks.mean()) + 1,
        "geometric_mean_R1-R5-R10": float(np.cbrt(recall["R1"] * recall["R5"] * recall["R10"])),
    }
