import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import VARIANTS, create_model
from model.flops import forward_flops, inference_flops_per_clip, peak_tflops, train_flops_per_clip


def counted(
    batch: int, texts: int, training: bool, trained_text_blocks=3, freeze=False, variant_changes=None
):
    """FLOPs of one clip as PyTorch counts them, attention written out in matrix products."""
    model = create_model(
        "TVTSv2_Demo",
        attention="math",
        trained_text_blocks=trained_text_blocks,
        freeze_text_embeddings=freeze,
        **(variant_changes or {}),
    )
    inputs = {
        "video": torch.randn(batch, 3, 3, 64, 64),
        "keep_ind": torch.arange(8).repeat(batch, 1),
        "text": torch.arange(49397, 49408).repeat(texts * batch, 1),  # end-of-text last
    }
    with FlopCounterMode(display=False) as counter:
        out = model(inputs)
        if training:
            sum(x.sum() for x in out if x is not None).backward()
    return counter.get_total_flops() / batch, model.variant


@pytest.mark.parametrize("changes", [{}, {"sort_tokens": "patches_raw"}])
@pytest.mark.parametrize("texts", [1, 4])
def test_forward_is_what_pytorch_counts(texts, changes):
    want, variant = counted(2, texts, training=False, variant_changes=changes)
    got = sum(forward_flops(variant, num_frames=3, kept_patches=8, texts=texts, text_len=11).values())
    assert got == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize(("trained", "freeze"), [(3, False), (1, False), (1, True)])
def test_training_is_what_pytorch_counts(trained, freeze):
    want, variant = counted(2, 4, True, trained, freeze)
    got = train_flops_per_clip(variant, 3, 8, texts=4, text_len=11, freeze_text_embeddings=freeze)
    assert got == pytest.approx(want, rel=0.01)


def test_inference_of_published_sizes():
    """CLIP's ViT-B/16 needs about 35 GFLOPs an image; time attention adds a third of a block's weights."""
    one_frame = inference_flops_per_clip(VARIANTS["TVTSv2_B_16"], 1)
    assert 40e9 < one_frame < 50e9
    assert inference_flops_per_clip(VARIANTS["TVTSv2_B_16"], 12) > 12 * one_frame * 0.99


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H200", 989),
        ("NVIDIA H20", 148),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("Tesla V100-SXM2-32GB", 125),
        ("Tesla V100-PCIE-16GB", 112),
        ("NVIDIA RTX A6000", None),
        ("", None),
    ],
)
def test_peaks_are_those_of_the_card_named_not_of_its_namesakes(card, tflops):
    assert peak_tflops(card) == tflops
