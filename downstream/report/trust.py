"""How far figures can be trusted: their intervals, and the ties and duplicates behind them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.metric import sim_matrix

Statistic = Callable[[np.ndarray], dict[str, float]]  # the metrics of the queries at some places
DRAWS = 1000
COVERED = 95  # percent, by an interval
SAME = 1e-9  # how far the cosine of two embeddings of the same input lies below 1, by rounding


def bootstrap(statistic: Statistic, queries: int) -> dict[str, list[float]]:
    """95 % intervals [low, high] of metrics over queries, by drawing as many with replacement 1,000 times.

    The draws are the same for all figures of as many queries, and in every run. What is ranked (the videos,
    the classes) stays, so that the intervals say what other queries would do, not another training.

    statistic: of places int64 [queries], some of them several times.
    """
    rng = np.random.default_rng(0)
    found = [statistic(rng.integers(queries, size=queries)) for _ in range(DRAWS)]
    ends = [(100 - COVERED) / 2, (100 + COVERED) / 2]
    return {name: np.percentile([each[name] for each in found], ends).tolist() for name in found[0]}


def tied(scores: Tensor, own: Sequence[int]) -> int:
    """How many rows of float64 scores [N, M] give another candidate the score of the right one, own[n]: up to
    rounding, which then decides between them."""
    right = scores.gather(1, torch.tensor(own)[:, None])
    return int((torch.isclose(scores, right, rtol=1e-9, atol=0).sum(dim=1) > 1).sum())


def alike(embeds: Tensor) -> int:
    """How many rows of embeddings [N, D] point the way of another one, up to rounding."""
    rows, count = embeds.double(), 0
    for first in range(0, len(rows), 1024):
        same = sim_matrix(rows[first : first + 1024], rows) > 1 - SAME
        count += int((same.sum(dim=1) > 1).sum())
    return count
