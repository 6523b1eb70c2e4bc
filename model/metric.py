"""Similarities, ranks, retrieval metrics, accuracy, and how many texts were put into their order.

Ties follow the protocols: in retrieval a query's own video comes before its equals (Frozen in Time, and
Collaborative Experts before it), in classification the first of equal classes wins, as in argmax. NaN has no
place in an order and is refused.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ALIKE = 1e-5  # how far unit vectors of the same input may lie apart, by rounding in batches of other sizes


def sim_matrix(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Cosine similarities of a [M, D] and b [N, D] -> [M, N]. float32 even under autocast, norms >= eps."""
    with torch.autocast(a.device.type, enabled=False):
        a, b = (x if x.dtype == torch.float64 else x.float() for x in (a, b))
        return F.normalize(a, dim=-1, eps=eps) @ F.normalize(b, dim=-1, eps=eps).T


def check_finite(embeds: Tensor, names: Sequence[Any], kind: str = "embedding") -> None:
    """Refuse embeddings [N, D] with NaN or infinity in them: every comparison with NaN is false, so that by
    counting who is better they would rank first.

    Args:
        names: of the N rows, for the message.

    Raises:
        FloatingPointError: names the first such row.
    """
    finite = embeds.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        others = f" (and {len(bad) - 1} of the other {len(names) - 1})" if len(bad) > 1 else ""
        raise FloatingPointError(
            f"the {kind} of {names[bad[0]]}{others} holds NaN or infinity: either the weights are those of a "
            "training that diverged, or half precision overflows (use fp32)"
        )


def all_alike(embeds: np.ndarray | Tensor) -> bool:
    """Whether rows [N, D], at least two, all point the same way up to rounding: any ranking is a tie then."""
    rows = embeds.cpu().numpy() if isinstance(embeds, Tensor) else embeds
    blocks = (_unit(rows[first : first + 1024]) for first in range(0, len(rows), 1024))
    return len(rows) > 1 and all(np.abs(block - _unit(rows[:1])).max() < ALIKE for block in blocks)


def t2v_metrics(sims: np.ndarray | Tensor, query_masks: Any = None) -> dict[str, float]:
    """Text-to-video retrieval.

    Queries (captions) are grouped by video: of Q captions and V videos, captions v·Q/V .. (v+1)·Q/V - 1 are
    those of video v.

    Args:
        sims: [Q, V] similarities, Q a multiple of V.
        query_masks: optional [Q] (or any shape of Q elements), false for captions that do not exist.

    Returns:
        R1, R5, R10, R50 in percent, MedR and MeanR counted from 1, geometric_mean_R1-R5-R10.
        Ties are optimistic: only videos that are strictly more similar rank before the right one.

    Raises:
        ValueError: another shape, NaN, or a mask that leaves no caption.
    """
    return rank_metrics(t2v_ranks(sims, query_masks))


def t2v_ranks(sims: np.ndarray | Tensor, query_masks: Any = None) -> np.ndarray:
    """The rank, from 0, of its video for each caption that counts; see t2v_metrics."""
    sims, mask = _checked(sims, query_masks)
    Q, V = sims.shape
    right = sims[np.arange(Q), np.arange(Q) // (Q // V)]
    return (sims > right[:, None]).sum(axis=1)[mask]


def v2t_metrics(sims: np.ndarray | Tensor, query_masks: Any = None) -> dict[str, float]:
    """Video-to-text retrieval: arguments, results and errors as of t2v_metrics (sims is [Q, V] here too).

    A video counts with the best-ranked of its captions. Ties are averaged: a caption takes the middle of the
    ranks that its equals share. Masked captions are no candidates, and a video left without any is dropped.
    """
    return rank_metrics(v2t_ranks(sims, query_masks))


def v2t_ranks(sims: np.ndarray | Tensor, query_masks: Any = None) -> np.ndarray:
    """The rank, from 0, of the best caption for each video that counts; see v2t_metrics."""
    sims, mask = _checked(sims, query_masks)
    Q, V = sims.shape
    own = np.arange(Q).reshape(V, Q // V)  # the captions of each video
    sims = np.where(mask[:, None], sims, -np.inf)
    best = sims[own, np.arange(V)[:, None]].max(axis=1)  # most similar is best ranked, ties and all
    ranks = (sims > best).sum(axis=0) + ((sims == best).sum(axis=0) - 1) / 2
    return ranks[mask[own].any(axis=1)]


def retrieval_ranks(sims: Tensor, own: Sequence[int]) -> list[int]:
    """The rank, from 1, of column own[q] in each row q of sims [Q, V], ties as in t2v_metrics."""
    _refuse_nan(sims)
    right = sims[torch.arange(len(own)), torch.tensor(own)]
    return ((sims > right[:, None]).sum(dim=1) + 1).tolist()


def label_ranks(logits: Tensor, labels: Sequence[int]) -> list[int]:
    """The rank, from 1, of each row's true class in logits [N, classes]; of equal ones the first is first."""
    _refuse_nan(logits)
    label = torch.tensor(labels)[:, None]
    own = logits.gather(1, label)
    before = torch.arange(logits.shape[1]) < label
    return (((logits > own) | ((logits == own) & before)).sum(dim=1) + 1).tolist()


def accuracy(ranks: Sequence[int] | np.ndarray, top: Sequence[int] = (1, 5)) -> dict[str, float]:
    """{"top1": …, "top5": …} in percent, of the ranks (from 1) of the right answers."""
    ranks = np.asarray(ranks)
    return {f"top{k}": 100.0 * int((ranks <= k).sum()) / len(ranks) for k in top}


def in_order(order_logits: Tensor) -> Tensor:
    """bool [B]: whether all K texts of a sample [B, K texts, K places] are put into their own place."""
    places = torch.arange(order_logits.shape[1], device=order_logits.device)
    return (order_logits.argmax(dim=-1) == places).all(dim=-1)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _refuse_nan(scores: Tensor) -> None:
    if scores.isnan().any():
        raise ValueError("the scores hold NaN; ranks would be meaningless. Look for NaN in the embeddings")


def _checked(sims: np.ndarray | Tensor, query_masks: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(sims, Tensor):
        sims = sims.detach().cpu()
        sims = (sims if sims.dtype == torch.float64 else sims.float()).numpy()
    sims = np.asarray(sims)
    if sims.ndim != 2 or not sims.size or sims.shape[0] % sims.shape[1]:
        raise ValueError(
            f"sims must be [captions, videos], captions a multiple of videos; got shape {list(sims.shape)}"
        )
    _refuse_nan(torch.from_numpy(sims))
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


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """The metrics of t2v_metrics, of ranks from 0."""
    recall = {"R1": 100.0 * float((ranks == 0).mean())}  # an averaged rank of 0.5 is no hit
    recall |= {f"R{k}": 100.0 * float((ranks < k).mean()) for k in (5, 10, 50)}
    return {
        **recall,
        "MedR": float(np.median(ranks)) + 1,
        "MeanR": float(ranks.mean()) + 1,
        "geometric_mean_R1-R5-R10": float(np.cbrt(recall["R1"] * recall["R5"] * recall["R10"])),
    }
