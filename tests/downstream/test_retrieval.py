"""Several captions a video, and the dual softmax, against loops."""

import math

import pytest
import torch

from downstream.retrieval import best_of_own, dual_softmax, of_groups
from model.metric import retrieval_ranks, t2v_metrics, v2t_metrics


def test_dual_softmax_against_loops():
    sims = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for_texts, for_videos = dual_softmax(sims, 0.1)
    for t in range(4):
        for v in range(3):
            texts = sum(math.exp(float(sims[k, v]) / 0.1) for k in range(4))
            videos = sum(math.exp(float(sims[t, k]) / 0.1) for k in range(3))
            weight = math.exp(float(sims[t, v]) / 0.1)
            assert float(for_texts[t, v]) == pytest.approx(float(sims[t, v]) * weight / texts)
            assert float(for_videos[t, v]) == pytest.approx(float(sims[t, v]) * weight / videos)


def test_dual_softmax_repairs_a_video_that_everything_is_near():
    # Video 0 is near every text, so that it takes text 1 from its own video.
    sims = torch.tensor([[0.9, 0.1], [0.6, 0.5]])
    assert retrieval_ranks(sims, [0, 1]) == [1, 2]
    assert retrieval_ranks(dual_softmax(sims, 0.01)[0], [0, 1]) == [1, 1]


def test_unequal_numbers_of_captions():
    # Two captions of video 0, in between one of video 1, three of video 2.
    owner = [0, 1, 0, 2, 2, 2]
    sims = torch.rand(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ranks = [1 + sum(float(x) > float(row[owner[i]]) for x in row) for i, row in enumerate(sims)]
    assert retrieval_ranks(sims, owner) == ranks
    metrics = of_groups(t2v_metrics, sims, owner)
    assert metrics["MeanR"] == pytest.approx(sum(ranks) / 6)
    assert metrics["R1"] == pytest.approx(100 * ranks.count(1) / 6)
    best = [
        min(
            1 + sum(float(sims[k, v]) > float(sims[i, v]) for k in range(6))
            for i in range(6)
            if owner[i] == v
        )
        for v in range(3)
    ]
    assert of_groups(v2t_metrics, sims, owner)["MeanR"] == pytest.approx(sum(best) / 3)


def test_a_caption_that_a_video_has_twice_is_no_tie_with_itself():
    owner = [0, 1, 0, 1, 2]
    sims = torch.tensor([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.9, 0.1, 0], [0, 0.7, 0], [0, 0.8, 0.5]])
    assert of_groups(v2t_metrics, sims, owner)["R1"] == pytest.approx(0 + 100 / 3)
    # Video 1 still ties with the caption of video 2.
    found = of_groups(v2t_metrics, best_of_own(sims, owner), owner)
    assert found["R1"] == pytest.approx(200 / 3) and found["MeanR"] == pytest.approx(1 + 0.5 / 3)
