"""Models that multiply in fp8, on a CPU in the plain form, which quantises alike."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from benchmarks.precision import blobs, outliers_in_both
from model import create_model
from model.fp8 import fp8_copy, largest_values, train_in_fp8
from model.kernels import Fp8Linear
from tests.model.test_text_encoder import random_ids


def model(**overrides):
    torch.manual_seed(0)
    return create_model("TVTSv2_Demo", temporal_attention_init="random", **overrides).eval()


def clips(frames=3):
    return blobs(2, frames, 64)


@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_embeddings_are_close_to_float32(activation, outliers):
    exact = model(activation=activation)
    if outliers:
        outliers_in_both(exact)
    video = clips()
    with torch.no_grad():
        want, _ = exact.encode_video(video)
        got, _ = fp8_copy(exact).encode_video(video)
        with torch.autocast("cpu", torch.bfloat16):
            half, _ = fp8_copy(exact).encode_video(video)
    for embeds in (got, half.float()):
        assert nn.functional.cosine_similarity(embeds, want).min() >= 0.998
        assert not torch.equal(embeds, want)


def test_only_the_layers_of_video_blocks_are_quantised():
    exact = model()
    copy = fp8_copy(exact)
    quantised = [name for name, module in copy.named_modules() if isinstance(module, Fp8Linear)]
    blocks = len(exact.video_model.transformer.resblocks)
    assert len(quantised) == 6 * blocks
    assert all(name.startswith("video_model.transformer.resblocks.") for name in quantised)
    assert not any(isinstance(module, Fp8Linear) for module in exact.modules())
    ids = random_ids([7, 5])
    with torch.no_grad():
        assert torch.equal(copy.encode_text(ids), exact.encode_text(ids))


@pytest.mark.parametrize("outliers", [False, True])
def test_no_value_of_attention_exceeds_what_the_weights_tell(outliers):
    exact = model()
    block = exact.video_model.transformer.resblocks[0]
    if outliers:
        outliers_in_both(exact)
        nn.init.normal_(block.ln_1.bias)
        nn.init.normal_(block.attn.qkv.bias)
    bound = largest_values(block.ln_1, block.attn.qkv)
    with torch.no_grad():
        # tokens that make each value as large as it can be, and others
        worst = block.ln_1.weight * block.attn.qkv.weight[-64:]
        x = torch.cat([worst, -worst, torch.randn(200, 64) * torch.tensor([1e3] + 63 * [1.0])])
        values = block.attn.qkv(block.ln_1(x))[:, -64:].abs().amax(0)
    assert (values <= bound).all() and (values >= bound / 2).any()


def test_the_rest_is_shared_not_copied():
    exact = model()
    copy = fp8_copy(exact)
    theirs = dict(exact.named_parameters())
    assert all(parameter is theirs[name] for name, parameter in copy.named_parameters())
    assert copy.video_model.transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.float8_e4m3fn


def outputs_and_gradients(model, video, weights):
    model.zero_grad()
    embeds, _ = model.encode_video(video)
    (embeds * weights).sum().backward()
    return embeds.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def cosine(a, b):
    return nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0).item()


@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_training_gives_gradients_close_to_float32(activation, outliers):
    exact = model(activation=activation)
    if outliers:
        outliers_in_both(exact)
    trained = deepcopy(exact)
    train_in_fp8(trained)
    assert list(trained.state_dict()) == list(exact.state_dict())
    video, weights = clips(), torch.randn(2, exact.variant.embed_dim)
    embeds, want = outputs_and_gradients(exact, video, weights)
    got_embeds, got = outputs_and_gradients(trained, video, weights)
    assert nn.functional.cosine_similarity(got_embeds, embeds).min() >= 0.998
    assert got.keys() == want.keys()
    whole = [torch.cat([gradient.flatten() for gradient in each.values()]) for each in (got, want)]
    assert 0.998 <= cosine(*whole) < 0.99999
    assert min(cosine(got[name], want[name]) for name in want) > 0.98
    with torch.no_grad():
        assert torch.equal(trained.encode_video(video)[0], got_embeds)


@pytest.mark.heavy
def test_recomputing_and_compiling_change_nothing():
    torch.compiler.reset()
    plain, other = (
        create_model("TVTSv2_Demo", video_layers=1, sort_head=False, activation_checkpointing=every)
        for every in (0, 1)
    )
    other.load_state_dict(plain.state_dict())
    train_in_fp8(plain)
    train_in_fp8(other)
    other.video_model.compile_regions(1, fullgraph=True, backend="aot_eager")
    video, weights = clips(), torch.randn(2, plain.variant.embed_dim)
    want_embeds, want = outputs_and_gradients(plain, video, weights)
    embeds, got = outputs_and_gradients(other, video, weights)
    torch.testing.assert_close(embeds, want_embeds)
    assert got.keys() == want.keys()
    assert min(cosine(got[name], want[name]) for name in want) > 0.9999
