"""Arithmetic of a clip, counted in matrix products: a product of [a, b] and [b, c] is 2abc FLOPs.

Norms, activations, softmax and the optimiser are left out and causal attention counts as full, as is usual
for model-FLOPs utilisation. What activation checkpointing recomputes is left out too.
"""

import re

from .variants import Variant

# Dense TFLOP/s of the data sheets, in bf16 (V100: fp16), by the words that stand in a card's name. Cards that
# share a name with a faster or slower one have a line of their own; cards in no line have no peak here.
PEAK_TFLOPS = {
    "B200": 2250,
    "GH200": 989,
    "H200": 989,
    "H200 NVL": 835,
    "H100": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100 HBM2e": 756,  # the PCIe card by another name
    "H20": 148,
    "A100": 312,
    "A40": 150,
    "A30": 165,
    "A10": 125,
    "A10G": 70,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 4090": 165,
    "V100": 125,
    "V100 PCIE": 112,
}


def forward_flops(
    variant: Variant, num_frames: int, kept_patches: int, texts: int, text_len: int, sort_head: bool = True
) -> dict[str, int]:
    """FLOPs of one clip with its texts, by part of the model.

    kept_patches is of a frame, text_len the longest text of the batch in tokens; no texts, no text tower.
    """
    v = variant
    patches = num_frames * kept_patches
    tokens = 1 + patches
    width = v.video_width
    class_pairs = 2 * tokens  # in time and in space
    time_pairs = patches * (1 + num_frames)
    space_pairs = patches * (1 + kept_patches)
    flops = {
        "patch embedding": 2 * patches * 3 * v.patch_size**2 * width,
        # Two attentions of 4 width² and an MLP of 8 width² a token; a pair of query and key costs 4 width.
        "video blocks": v.video_layers
        * (2 * tokens * 16 * width**2 + 4 * width * (class_pairs + time_pairs + space_pairs)),
        "video projection": 2 * tokens * width * v.embed_dim,
    }
    if texts:
        block = texts * (2 * text_len * 12 * v.text_width**2 + 4 * v.text_width * text_len**2)
        flops["frozen text blocks"] = (v.text_layers - v.trained_text_blocks) * block
        flops["trained text blocks"] = v.trained_text_blocks * block
        flops["text projection"] = 2 * texts * v.text_width * v.embed_dim
    if sort_head and texts > 1:
        length, width = tokens - (v.sort_tokens == "patches_raw") + texts, v.embed_dim
        full = 2 * length * 12 * width**2 + 4 * width * length**2
        last = 2 * (length * 2 + texts * 10) * width**2 + 4 * width * length * texts  # reads the texts alone
        flops["sort head"] = (v.sort_layers - 1) * full + last + 2 * texts * width * v.sort_clips
    return flops


def train_flops_per_clip(
    variant: Variant,
    num_frames: int,
    kept_patches: int,
    texts: int = 1,
    text_len: int = 77,
    sort_head: bool = True,
    freeze_text_embeddings: bool = False,
) -> int:
    """FLOPs of one clip forward and backward. Multiply by clips a second for the FLOP/s of a training run.

    Backward makes two products for each one of forward, gradients of the input and of the weights; pixels and
    frozen weights need none.
    """
    factors = {"patch embedding": 2, "frozen text blocks": 1 if freeze_text_embeddings else 2}
    parts = forward_flops(variant, num_frames, kept_patches, texts, text_len, sort_head)
    return sum(factors.get(part, 3) * flops for part, flops in parts.items())


def inference_flops_per_clip(variant: Variant, num_frames: int) -> int:
    """FLOPs of embedding one clip with all its patches."""
    return sum(forward_flops(variant, num_frames, variant.num_patches, texts=0, text_len=0).values())


def peak_tflops(device_name: str) -> float | None:
    """The TFLOP/s that a card's data sheet promises for dense bf16 matrix products; None where not known.

    device_name: as `torch.cuda.get_device_name` gives it, such as "NVIDIA H100 80GB HBM3".
    """
    words = set(re.split(r"[\s-]+", device_name.lower()))
    if words & {"laptop", "mig", "d"}:  # smaller chips, or slices of one, under the name of the whole
        return None
    fitting = [name for name in PEAK_TFLOPS if words.issuperset(name.lower().split())]
    return PEAK_TFLOPS[max(fitting, key=len)] if fitting else None
