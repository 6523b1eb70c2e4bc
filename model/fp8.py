"""Models whose video tower multiplies 8-bit floating-point numbers, for inference and for training."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from .attention import DividedAttention
from .kernels import Fp8Linear, TrainedFp8Linear, check_fp8, scales_for
from .layers import Mlp
from .tvtsv2 import TVTSv2
from .video_encoder import Block


def fp8_copy(model: TVTSv2) -> TVTSv2:
    """A copy that shares the model's weights, but for those of the linear layers in the video tower's blocks.

    Those, the layers before and behind both attentions and the two of the MLP, are quantised here, once:
    e4m3, with a scale for each output channel. Their inputs are while the model runs, with one for each
    token, or behind attention for each channel, known beforehand; attention itself, LayerNorm, sums, the
    first and the last layers and the text tower stay in the precision of autocast, which is to be bf16. The
    copy has no gradients for them. Copy before compiling.

    Raises:
        ValueError: the model's device has no fp8 products. On a CPU they are computed in float32.
    """
    check_fp8(model.device)
    copy = deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    scale_outputs_of_attention(copy)
    _replace_linear_layers(copy, Fp8Linear)
    return copy


def scale_outputs_of_attention(model: TVTSv2) -> None:
    """Let attention write e4m3 numbers, and the layers behind it take them.

    No program of its kernel sees a whole token, so that scales cannot wait for the largest number; but the
    output is a mean of values, whose bound the weights tell.
    """
    for block in model.video_model.transformer.resblocks:
        assert isinstance(block, Block)
        for norm, attention in ((block.ln_3, block.timeattn), (block.ln_1, block.attn)):
            scales = scales_for(largest_values(norm, attention.qkv))
            attention.factors = 1 / scales
            attention.set_submodule("proj", Fp8Linear(attention.proj, scales))


@torch.no_grad()
def largest_values(norm: nn.LayerNorm, qkv: nn.Linear) -> Tensor:
    """What the values behind a LayerNorm cannot exceed, [width], a quarter added for what fp8 and bf16 round.

    Before its weight and bias a LayerNorm's output has a length of at most the root of the width.
    """
    width = len(norm.weight)
    weight, bias = qkv.weight[-width:].float(), qkv.bias[-width:].float()
    lengths = (weight * norm.weight).norm(dim=1) * width**0.5
    return 1.25 * (lengths + (weight @ norm.bias.float() + bias).abs())


def train_in_fp8(model: TVTSv2) -> None:
    """Let the same layers multiply in fp8 in training, in place; parameters stay what they are.

    Their gradients are there, and checkpoints are the same. Call it before compiling or spreading over ranks.
    """
    _replace_linear_layers(model, TrainedFp8Linear)


def _replace_linear_layers(model: TVTSv2, kind: Callable[[nn.Linear], nn.Module]) -> None:
    for module in model.video_model.modules():
        if isinstance(module, Block | Mlp):
            module.fp8 = True
        if isinstance(module, DividedAttention | Mlp):
            for name, layer in module.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(module, name, kind(layer))
