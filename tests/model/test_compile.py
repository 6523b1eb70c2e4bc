"""torch.compile without graph breaks, and torch.export, on the demo variant."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from model import create_model
from model.variants import get_variant
from model.video_encoder import VideoTransformer
from tests.model.test_text_encoder import random_ids

# Traces forward and backward as every back end needs, then runs them as they are: no C++ compiler is needed.
BACKEND = "aot_eager"


@pytest.fixture
def model():
    torch.manual_seed(0)
    torch.compiler.reset()
    return create_model("TVTSv2_Demo", trained_text_blocks=2)


def inputs(frames=3, kept=8):
    video = torch.randint(0, 256, (2, frames, 3, 64, 64), dtype=torch.uint8)
    return video, torch.stack([torch.randperm(16)[:kept] for _ in range(2)])


def gradients(model, out):
    model.zero_grad()
    out.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got, want):
    assert got.keys() == want.keys()
    for name in want:
        scale = want[name].abs().max().item()  # rounding grows with what is summed, not with the one result
        torch.testing.assert_close(got[name], want[name], atol=1e-4 * scale, rtol=0, msg=name)


@pytest.mark.heavy
@pytest.mark.parametrize("checkpointing", [0, 1, "mlp"])
def test_video_tower_is_one_graph(model, checkpointing):
    model = create_model("TVTSv2_Demo", activation_checkpointing=checkpointing)
    video, keep = inputs()
    valid = torch.tensor([2, 3])
    compiled = torch.compile(model.encode_video, fullgraph=True, backend=BACKEND)
    want = model.encode_video(video, keep, valid)
    got = compiled(video, keep, valid)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert_same_gradients(gradients(model, got[1]), gradients(model, want[1]))


@pytest.mark.heavy
def test_text_tower_is_one_graph(model):
    ids = random_ids((5, 9))
    compiled = torch.compile(model.encode_text, fullgraph=True, backend=BACKEND)
    got, want = compiled(ids), model.encode_text(ids)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert_same_gradients(gradients(model, got), gradients(model, want))


@pytest.mark.heavy
@pytest.mark.parametrize("region", [1, 2, 4])
def test_towers_compiled_in_place_keep_their_names_and_take_texts_of_any_length(model, region):
    names = list(model.state_dict())
    video, keep = inputs()
    batches = [{"video": video, "keep_ind": keep, "text": random_ids([n] * 8)} for n in (5, 9, 13)]
    want = [model(batch) for batch in batches]
    want_gradients = gradients(model, want[0].video_embeds + want[0].text_embeds)
    model.compile_towers(region, fullgraph=True, backend=BACKEND)
    assert list(model.state_dict()) == names
    for batch, one in zip(batches, want, strict=True):
        for got, other in zip(model(batch), one, strict=True):
            torch.testing.assert_close(got, other, atol=1e-5, rtol=1e-5)
    out = model(batches[0])
    assert_same_gradients(gradients(model, out.video_embeds + out.text_embeds), want_gradients)


@pytest.mark.heavy
def test_the_regions_of_a_tower_share_what_is_compiled():
    torch.compiler.reset()
    model = create_model("TVTSv2_Demo", video_layers=6, sort_head=False)
    model.compile_towers(2, fullgraph=True, backend=BACKEND)
    before = counters["stats"]["unique_graphs"]
    model.encode_video(inputs()[0])
    assert counters["stats"]["unique_graphs"] - before == 3  # before the blocks, the blocks, after them


@pytest.mark.heavy
@pytest.mark.parametrize("region", [1, 2])
def test_what_the_first_step_compiles_does_for_all_texts_after_it(model, region):
    model.compile_towers(region, fullgraph=True, backend=BACKEND)
    video, keep = inputs()
    model({"video": video, "keep_ind": keep, "text": random_ids([9] * 8)})
    before = counters["stats"]["unique_graphs"]
    for lengths in ([5] * 2, [13] * 8, [7] * 2):  # of one training set and of the other, in turn
        model({"video": video, "keep_ind": keep, "text": random_ids(lengths)})
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.heavy
@pytest.mark.parametrize("checkpointing", [1, "mlp"])
def test_regions_that_are_recomputed_in_backward(checkpointing):
    torch.manual_seed(0)
    models = [create_model("TVTSv2_Demo", activation_checkpointing=kind) for kind in (0, checkpointing)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].compile_towers(2, fullgraph=True, backend=BACKEND)
    video, keep = inputs()
    want, got = (gradients(model, model.encode_video(video, keep)[0]) for model in models)
    assert_same_gradients(got, want)


@pytest.mark.parametrize("arch", ["TVTSv2_Demo", "TVTSv2_H_14"])
def test_outputs_of_the_compiled_part_after_the_blocks_share_no_memory(arch):
    """PyTorch 2.11 makes garbage of one that is a view of another when it takes the graph from its cache."""
    encoder = VideoTransformer(get_variant(arch).replace(video_layers=1))
    outputs = encoder.read_out(torch.randn(2, 1 + 3 * 4, encoder.variant.video_width))
    assert len({out.untyped_storage().data_ptr() for out in outputs}) == len(outputs) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the default back end is for GPUs here")
def test_default_back_end_on_a_gpu(model):
    model.cuda()
    video, keep = inputs()
    batch = {"video": video.cuda(), "keep_ind": keep, "text": random_ids([6] * 8)}
    want = model(batch)
    want_gradients = gradients(model, want.order_logits)
    for _ in range(2):  # the second time from the cache on disk
        compiled = copy.deepcopy(model)
        compiled.compile_towers(fullgraph=True)
        out = compiled(batch)
        for got, other in zip(out, want, strict=True):
            torch.testing.assert_close(got, other, atol=1e-4, rtol=1e-3)
        assert_same_gradients(gradients(compiled, out.order_logits), want_gradients)
        torch.compiler.reset()


@pytest.mark.heavy
def test_exported_evaluation_towers_match_eager(model):
    model = model.eval().requires_grad_(False)
    video, _ = inputs()
    ids = random_ids([5] * 3)
    batch_size, texts = torch.export.Dim("batch"), torch.export.Dim("texts")

    class Evaluation(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, video, ids):
            return self.model.encode_video(video)[0], self.model.encode_text(ids)

    program = torch.export.export(
        Evaluation(), (video, ids), dynamic_shapes={"video": {0: batch_size}, "ids": {0: texts}}
    )
    more_video, more_ids = torch.cat([video, video + 1]), torch.cat([ids, random_ids([70] * 2)])
    for one, other in zip(
        program.module()(more_video, more_ids), Evaluation()(more_video, more_ids), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
