"""Metrics against the official code's numbers, and against slow plain versions."""

import json
import math

import numpy as np
import pytest
import torch

from model.metric import (
    accuracy,
    all_alike,
    check_finite,
    in_order,
    label_ranks,
    retrieval_ranks,
    sim_matrix,
    t2v_metrics,
    v2t_metrics,
)
from tests.model.golden import GOLDEN

CASES = json.loads((GOLDEN / "data.json").read_text())["metrics"]


def golden_sims(case: dict) -> torch.Tensor:
    shape = (case["queries"], case["videos"])
    sims = torch.randn(shape, generator=torch.Generator().manual_seed(case["seed"]), dtype=torch.float64)
    if case["name"] == "ties":
        return sims.round()
    rows = torch.arange(case["queries"])
    sims[rows, rows // (case["queries"] // case["videos"])] += 2
    return sims


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden_metrics(case):
    sims = golden_sims(case)
    mask = np.ones(case["queries"])
    mask[case.get("masked_out", [])] = 0
    mask = mask if "masked_out" in case else None
    assert t2v_metrics(sims, mask) == pytest.approx(case["t2v"])
    assert v2t_metrics(sims.numpy(), mask) == pytest.approx(case["v2t"])


def plain_ranks(sims: np.ndarray, mask: np.ndarray) -> tuple[list, list]:
    """0-based ranks of captions and of videos, by sorting and looking."""
    Q, V = sims.shape
    per = Q // V
    t2v = [list(np.sort(-sims[q])).index(-sims[q, q // per]) for q in range(Q) if mask[q]]
    v2t = []
    for v in range(V):
        order = np.sort([-sims[q, v] for q in range(Q) if mask[q]])
        own = [q for q in range(v * per, (v + 1) * per) if mask[q]]
        if own:
            v2t.append(min(np.mean(np.where(order == -sims[q, v])[0]) for q in own))
    return t2v, v2t


@pytest.mark.parametrize("seed", range(5))
def test_against_plain_versions_with_ties_groups_and_masks(seed):
    rng = np.random.default_rng(seed)
    videos, per = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    sims = rng.integers(-2, 3, (videos * per, videos)).astype(np.float32)
    mask = rng.random(videos * per) < 0.6
    mask[0] = True
    for ranks, metrics in zip(
        plain_ranks(sims, mask), (t2v_metrics(sims, mask), v2t_metrics(sims, mask)), strict=True
    ):
        assert metrics["MeanR"] == pytest.approx(np.mean(ranks) + 1)
        assert metrics["MedR"] == pytest.approx(np.median(ranks) + 1)
        assert metrics["R1"] == pytest.approx(100 * np.mean(np.array(ranks) == 0))
        assert metrics["R5"] == pytest.approx(100 * np.mean(np.array(ranks) < 5))


def test_tensors_arrays_and_bfloat16_are_taken_and_left_alone():
    sims = torch.randn(6, 3)
    before = sims.clone()
    mask = torch.tensor([1, 1, 0, 1, 1, 1])
    assert v2t_metrics(sims, mask) == v2t_metrics(sims.numpy(), mask.numpy())
    assert torch.equal(sims, before)
    exact = sims.bfloat16()
    assert t2v_metrics(exact) == t2v_metrics(exact.float())


@pytest.mark.parametrize(
    ("sims", "mask", "message"),
    [
        (np.zeros((5, 2)), None, "multiple of videos"),
        (np.zeros(4), None, "multiple of videos"),
        (np.zeros((0, 0)), None, "multiple of videos"),
        (np.full((2, 2), np.nan), None, "NaN"),
        (np.zeros((2, 2)), [1, 1, 1], "query_masks"),
        (np.zeros((2, 2)), [0, 0], "query_masks"),
    ],
)
def test_bad_input_is_refused(sims, mask, message):
    for metrics in (t2v_metrics, v2t_metrics):
        with pytest.raises(ValueError, match=message):
            metrics(sims, mask)


def test_sim_matrix_is_cosine_with_clamped_norms_in_float32():
    a, b = torch.randn(3, 8), torch.randn(5, 8)
    a[0] = 0
    want = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1, eps=1e-8)
    torch.testing.assert_close(sim_matrix(a, b), want)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(sim_matrix(a, b), want)
    assert sim_matrix(a.bfloat16(), b.bfloat16()).dtype == torch.float32
    assert sim_matrix(a.double(), b.double()).dtype == torch.float64


def test_a_sample_is_in_order_when_all_its_texts_are():
    logits = torch.eye(4).repeat(4, 1, 1)
    logits[1, 2] = torch.tensor([9.0, 0, 0, 0])  # one text out of place
    assert in_order(logits).tolist() == [True, False, True, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_embeddings_that_are_no_numbers_are_named(bad):
    embeds = torch.randn(4, 3)
    check_finite(embeds, "abcd")
    embeds[2, 1] = bad
    with pytest.raises(FloatingPointError, match="the embedding of c holds NaN or infinity"):
        check_finite(embeds, "abcd")
    embeds[3] = bad
    with pytest.raises(FloatingPointError, match=r"of c \(and 1 of the other 3\) holds"):
        check_finite(embeds, "abcd")
    with pytest.raises(FloatingPointError, match="the order of b"):
        check_finite(torch.stack([torch.zeros(2, 2), torch.full((2, 2), bad)]), "ab", "order")


def test_ranks_of_nan_are_refused():
    scores = torch.tensor([[0.1, math.nan], [0.3, 0.2]])
    for ranks in (retrieval_ranks, label_ranks):
        with pytest.raises(ValueError, match="NaN"):
            ranks(scores, [1, 0])


def test_what_is_alike():
    row = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    rounding = torch.randn(9, 16, generator=torch.Generator().manual_seed(1)) * 1e-7
    assert all_alike(row + rounding)
    assert all_alike(torch.zeros(3, 16))
    assert all_alike(torch.tensor([[1.0], [3.0]]) * row)  # cosines see no lengths
    assert not all_alike(torch.cat([row.repeat(9, 1), row + 0.01]))
    assert not all_alike(row) and not all_alike(torch.zeros(0, 16))


def test_of_equal_classes_the_first_comes_first():
    logits = torch.tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    assert label_ranks(logits, [1, 2]) == [1, 3]
    assert label_ranks(logits, [2, 0]) == [2, 1]
    assert logits.argmax(dim=1).tolist() == [1, 0]


@pytest.mark.parametrize(("ranks", "top1", "top5"), [([1, 2, 6, 1], 50, 75), ([1], 100, 100), ([9], 0, 0)])
def test_accuracy(ranks, top1, top5):
    assert accuracy(ranks) == {"top1": top1, "top5": top5}
