"""Linear layers whose products are of 8-bit floating-point numbers, for inference.

Both factors are e4m3, with a scale for each row of the input and each output channel of the weight, so that
one large token costs the others no precision. Under bf16 autocast on a GPU, PyTorch's `_scaled_mm` multiplies
them; elsewhere, and as what tests compare with, the same numbers are multiplied in float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..precision import dtype_of_products
from .projection import HAS_TRITON, kernels_take

if HAS_TRITON:
    from . import triton_fp8

LARGEST = 448.0  # of e4m3
SMALLEST_PEAK = 1e-30  # rows of zeros have a scale, too
OLDEST = (8, 9)  # compute capability with fp8 products: Ada, Hopper and what came later


class Quantized(NamedTuple):
    """A tensor [..., K] as e4m3 `values` [..., K] times float32 `scales` [..., 1]."""

    values: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        return self.values.float() * self.scales


def quantize_rows(x: Tensor) -> Quantized:
    """x [..., K] so that each row's largest number is e4m3's largest."""
    if kernels_take(x, x.dtype):
        return Quantized(*triton_fp8.quantize(x))
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_PEAK) / LARGEST
    return Quantized((x * (1 / scales)).to(torch.float8_e4m3fn), scales)


class Fp8Linear(nn.Module):
    """A linear layer in fp8, without gradients: [..., in] -> [..., out].

    Its input may be quantised already, by the kernel that makes it.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        values, scales = quantize_rows(layer.weight.detach())
        self.register_buffer("weight", values)  # [out, in]
        self.register_buffer("scales", scales)  # [out, 1]
        self.register_buffer("bias", layer.bias.detach())
        self.out_features = layer.out_features

    weight: Tensor
    scales: Tensor
    bias: Tensor

    def forward(self, x: Tensor | Quantized) -> Tensor:
        x = x if isinstance(x, Quantized) else quantize_rows(x)
        dtype = dtype_of_products(x.scales)
        if not (x.scales.is_cuda and dtype == torch.bfloat16):
            with torch.autocast(x.scales.device.type, enabled=False):
                weight = Quantized(self.weight, self.scales).dequantize()
                return F.linear(x.dequantize(), weight, self.bias.float()).to(dtype)
        y = torch._scaled_mm(
            x.values.flatten(0, -2),
            self.weight.t(),
            scale_a=x.scales.flatten(0, -2),
            scale_b=self.scales.t(),
            bias=self.bias.to(dtype),
            out_dtype=dtype,
            use_fast_accum=True,
        )
        return y.unflatten(0, x.values.shape[:-1])


Linear = nn.Linear | Fp8Linear


def check_fp8(device: torch.device) -> None:
    """ValueError where the device cannot multiply fp8 numbers. A CPU can, slowly: in float32."""
    if device.type == "cpu":
        return
    if device.type != "cuda" or torch.version.hip:
        raise ValueError(f"precision fp8 needs an NVIDIA GPU, not {device}; use bf16")
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        raise ValueError(
            f"precision fp8 needs a GPU of compute capability {OLDEST[0]}.{OLDEST[1]} or later (Ada, Hopper, "
            f"Blackwell); {torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}: use bf16"
        )
