"""What precision an Embedder computes in."""

import pytest
import torch

from downstream.embedding.embedder import Embedder
from model import create_model
from utils.processes import setup


def embed(model, precision):
    embedder = Embedder(model, lambda texts: torch.zeros(len(texts), 77), setup("cpu"), precision=precision)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (1, 3, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return next(embedder.encode_clips(clip))[0]


def test_fp8_is_close_to_float32_and_leaves_the_model_as_it_was():
    model = create_model("TVTSv2_Demo", sort_head=False)
    before = embed(model, "fp32")
    fast = embed(model, "fp8")
    assert torch.cosine_similarity(fast, before).item() > 0.998
    assert not torch.equal(fast, embed(model, "bf16"))
    assert torch.equal(embed(model, "fp32"), before)


def test_fp8_is_for_our_own_models():
    with pytest.raises(ValueError, match="fp8 is for TVTSv2's own models; use bf16"):
        embed(torch.nn.Linear(2, 2), "fp8")


def test_an_unknown_precision_names_those_there_are():
    with pytest.raises(ValueError, match="must be one of fp32, bf16, fp8"):
        embed(torch.nn.Linear(2, 2), "int8")
