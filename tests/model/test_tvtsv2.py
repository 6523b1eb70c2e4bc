import pytest
import torch

from model import VARIANTS, create_model, is_new_parameter
from tests.model.test_text_encoder import random_ids


def batch_of(batch=2, texts=4, frames=3):
    return {
        "video": torch.randint(0, 256, (batch, frames, 3, 64, 64), dtype=torch.uint8),
        "keep_ind": torch.stack([torch.randperm(16)[:8] for _ in range(batch)]),
        "text": random_ids([5 + i for i in range(batch * texts)]),
    }


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("TVTSv2_Demo").eval()


def test_texts_are_clip_major_and_averaged(model):
    batch = batch_of()
    out = model(batch)
    texts = model.encode_text(batch["text"])
    for sample in range(2):
        torch.testing.assert_close(out.text_embeds[sample], texts[sample::2].mean(0), atol=1e-5, rtol=1e-5)
    _, tokens = model.encode_video(batch["video"], batch["keep_ind"])
    by_sample = torch.stack([texts[sample::2] for sample in range(2)])
    torch.testing.assert_close(out.order_logits, model.pred_model(tokens, by_sample), atol=1e-5, rtol=1e-5)


def test_one_text_or_no_sort_head_gives_no_order(model):
    assert model(batch_of(texts=1)).order_logits is None
    assert create_model("TVTSv2_Demo", sort_head=False)(batch_of()).order_logits is None


def test_video_alone(model):
    batch = batch_of()
    del batch["text"]
    out = model(batch)
    assert out.text_embeds is None
    assert out.order_logits is None
    assert out.video_embeds.shape == (2, 96)


def test_sorting_never_reaches_the_text_tower():
    model = create_model("TVTSv2_Demo")
    model(batch_of()).order_logits.sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any(name.startswith("text_") for name in with_gradient)
    assert any(name.startswith("video_model.") for name in with_gradient)


def test_texts_that_do_not_fit_the_videos_are_refused(model):
    batch = batch_of()
    with pytest.raises(ValueError, match="7 texts for 2 videos"):
        model({**batch, "text": batch["text"][:7]})
    with pytest.raises(ValueError, match="3 texts a video, but the sort head orders 4"):
        model({**batch, "text": batch["text"][:6]})


@pytest.mark.parametrize("every", [1, 2, "mlp"])
def test_activation_checkpointing_changes_nothing_and_keeps_less(model, every):
    torch.manual_seed(0)
    plain = create_model("TVTSv2_Demo")
    saving = create_model("TVTSv2_Demo", activation_checkpointing=every)
    saving.load_state_dict(plain.state_dict())
    batch = batch_of()
    elements, gradients = [], []
    for each in (plain, saving):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: (kept.append(x.numel()), x)[1], lambda x: x
        ):
            out = each(batch)
        elements.append(sum(kept))
        (out.video_embeds.square().sum() + out.text_embeds.square().sum()).backward()
        gradients.append({name: p.grad for name, p in each.named_parameters() if p.grad is not None})
    assert elements[1] < 0.85 * elements[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4)


def test_unknown_names_and_settings_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="unknown model 'resnet'; there are TVTSv2_B_16"):
        create_model("resnet")
    with pytest.raises(ValueError, match="no setting droput; it has activation, clip_family"):
        create_model("TVTSv2_Demo", droput=0.1)
    for bad in (
        {"activation": "relu"},
        {"trained_text_blocks": 4},
        {"video_heads": 5},
        {"num_frames": 0},
        {"mask_ratio": 1.0},
        {"image_size": 65},
        {"activation_checkpointing": -1},
        {"activation_checkpointing": "all"},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            create_model("TVTSv2_Demo", **bad)


def test_initial_values():
    torch.manual_seed(0)
    official = create_model(
        "TVTSv2_Demo",
        temporal_attention_init="zero",
        temporal_embedding_std=None,
        text_embedding_std=None,
        num_frames=64,
    )
    block = official.video_model.transformer.resblocks[0]
    assert not block.timeattn.qkv.weight.any()
    assert not block.timeattn.qkv.bias.any()
    assert torch.equal(block.timeattn.proj.weight, torch.ones(64, 64))
    assert official.video_model.temporal_embedding.shape == (64, 64)
    assert official.video_model.temporal_embedding.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert torch.equal(block.ln_3.weight, torch.ones(64))
    assert official.text_token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert official.text_positional_embedding.std().item() == pytest.approx(0.01, rel=0.05)
    assert [v.name for v in VARIANTS.values() if v.text_embedding_std is not None] == ["TVTSv2_Demo"]
    demo = create_model("TVTSv2_Demo")
    assert demo.text_token_embedding.weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert demo.text_positional_embedding.std().item() == pytest.approx(0.3, rel=0.05)
    assert demo.video_model.transformer.resblocks[0].timeattn.qkv.weight.any()
    assert demo.video_model.temporal_embedding.std().item() == pytest.approx(1.0, rel=0.1)
    assert demo.video_model.positional_embedding.std().item() == pytest.approx(1.0, rel=0.1)


def test_new_and_clip_parameters():
    with torch.device("meta"):
        names = [name for name, _ in create_model("TVTSv2_B_32").named_parameters()]
    new = [name for name in names if is_new_parameter(name)]
    assert len(new) == 12 * 6 + sum(name.startswith("pred_model.") for name in names)
    for clip in (
        "temporal_embedding",
        "class_embedding",
        "positional_embedding",
        "transformer.resblocks.0.attn.qkv.weight",
    ):
        assert not is_new_parameter(f"video_model.{clip}")
    assert is_new_parameter("video_model.transformer.resblocks.11.timeattn.proj.bias")
    assert is_new_parameter("video_model.transformer.resblocks.11.ln_3.bias")
    assert not is_new_parameter("text_ln_final.weight")


def test_the_table_of_variants():
    assert set(VARIANTS) == {"TVTSv2_B_16", "TVTSv2_B_32", "TVTSv2_H_14", "TVTSv2_Demo"}
    kept = {name: (v.num_patches, v.kept_patches) for name, v in VARIANTS.items()}
    assert kept["TVTSv2_B_32"] == (49, 49)
    assert kept["TVTSv2_B_16"] == (196, 98)
    assert kept["TVTSv2_H_14"] == (256, 76)
    assert kept["TVTSv2_Demo"] == (16, 8)


def test_frozen_model_can_be_cast_to_bfloat16():
    model = create_model("TVTSv2_Demo").bfloat16().eval()
    out = model(batch_of())
    assert out.video_embeds.dtype == torch.bfloat16
    assert out.text_embeds.isfinite().all()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("B_32", "B_32"), ("b32", "B_32"), ("ViT-B/16", "B_16"), ("tvtsv2-h-14", "H_14"), ("demo", "Demo")],
)
def test_a_misspelt_model_is_answered_with_the_one_meant(name, meant):
    with pytest.raises(ValueError, match=f"did you mean 'TVTSv2_{meant}'"):
        create_model(name)
