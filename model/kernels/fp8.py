"""Products of 8-bit floating-point numbers, and linear layers of them for inference.

Both factors are e4m3, with a scale for each row of the input and each output channel of the weight, so that
one large token costs the others no precision. Scales are powers of two: they move the exponents and round
nothing. Under bf16 autocast on a GPU, PyTorch's `_scaled_mm` multiplies; elsewhere, and as what tests compare
with, the same numbers are multiplied in float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..precision import dtype_of_products
from .projection import HAS_TRITON, Fp8Layer

if HAS_TRITON:
    from . import triton_fp8

SMALLEST_PEAK = 1e-30  # rows of zeros have a scale, too
ALIGNED = 16  # numbers, of which rows of a factor have a multiple
OLDEST = (8, 9)  # compute capability with fp8 products: Ada, Hopper and what came later


class Quantized(NamedTuple):
    """A tensor [..., K] as e4m3 `values` [..., K] times float32 `scales` [..., 1], powers of two.

    In training `exact` is the tensor itself, through which its gradient goes.
    """

    values: Tensor
    scales: Tensor
    exact: Tensor | None = None

    def dequantize(self) -> Tensor:
        return self.values.float() * self.scales


def scales_for(peaks: Tensor) -> Tensor:
    """The least powers of two by which e4m3's largest number, 448, is no smaller than these float32 peaks.

    448 is 1.75 · 2⁸: a mantissa above .75 carries into the exponent.
    """
    bits = peaks.clamp(min=SMALLEST_PEAK).view(torch.int32) + 0x1FFFFF
    return (bits & 0x7F800000).view(torch.float32) / 256


def kernels_quantize(x: Tensor) -> bool:
    """Whether the kernels run where x is, whatever its format."""
    return HAS_TRITON and x.is_cuda


def quantize_rows(x: Tensor) -> Quantized:
    """x [..., K] so that each row's largest number is in e4m3's highest octave."""
    if kernels_quantize(x):
        return Quantized(*triton_fp8.quantize(x))
    x = x.float()
    scales = scales_for(x.abs().amax(-1, keepdim=True))
    return Quantized((x / scales).to(torch.float8_e4m3fn), scales)


def quantize_columns(x: Tensor, factors: Tensor) -> Quantized:
    """x [..., K] times factors [K], which bring it into e4m3's range. The next layer's weight undoes them."""
    values = (x.float() * factors).to(torch.float8_e4m3fn)
    return Quantized(values, torch.ones_like(values[..., :1], dtype=torch.float32))


def quantize_for_training(x: Tensor) -> Quantized:
    """The same with x itself, for its gradient."""
    values, scales, _ = quantize_rows(x.detach())
    return Quantized(values, scales, x)


def transpose(x: Quantized) -> Quantized:
    """x [R, K] as [K, R'], with one scale [1, 1]; R' is R up to a multiple of 16, with zeros.

    Only what is so small beside the largest number that it loses bits there is rounded once more.
    """
    largest = x.scales.amax()
    if kernels_quantize(x.values):
        return Quantized(triton_fp8.transpose(x.values, x.scales, largest), largest[None, None])
    values = (x.values.float() * (x.scales / largest)).t()
    values = F.pad(values, (0, -values.shape[1] % ALIGNED)).to(torch.float8_e4m3fn)
    return Quantized(values.contiguous(), largest[None, None])


def multiply(a: Quantized, b: Quantized, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """a · bᵀ + bias of a [..., K], b [N, K] and bias [N], as [..., N] of this type."""
    if not (a.values.is_cuda and dtype == torch.bfloat16):
        with torch.autocast(a.values.device.type, enabled=False):
            return F.linear(a.dequantize(), b.dequantize(), None if bias is None else bias.float()).to(dtype)
    rows = a.scales.flatten(0, -2)
    y = torch._scaled_mm(
        a.values.flatten(0, -2),
        b.values.t(),
        scale_a=rows,
        scale_b=b.scales.t().expand(1, len(b.values)).contiguous(),
        bias=None if bias is None else bias.to(dtype),
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return y.unflatten(0, a.values.shape[:-1])


def multiply_over_tokens(a: Quantized, b: Quantized, kind: torch.dtype, dtype: torch.dtype) -> Tensor:
    """aᵀ · b of a [..., N] and b [..., K], as [N, K] of type dtype: a sum over all tokens.

    kind: in which format the products are that are not in fp8.
    """
    a, b = (transpose(Quantized(x.values.flatten(0, -2), x.scales.flatten(0, -2))) for x in (a, b))
    if not (a.values.is_cuda and kind == torch.bfloat16):
        return multiply(a, b, None, torch.float32).to(dtype)
    # Tensor cores round what they sum up; without fast accumulation float32 takes over every 128 numbers.
    return torch._scaled_mm(
        a.values,
        b.values.t(),
        scale_a=a.scales[0, 0],
        scale_b=b.scales[0, 0],
        out_dtype=dtype,
        use_fast_accum=False,
    )


class Fp8Linear(Fp8Layer, nn.Module):
    """A linear layer in fp8, without gradients: [..., in] -> [..., out].

    Its input may be quantised already, by the kernel that makes it; divided by `columns` [in], if they are
    given, by which the weight is multiplied for it.
    """

    def __init__(self, layer: nn.Linear, columns: Tensor | None = None):
        super().__init__()
        weight = layer.weight.detach()
        values, scales, _ = quantize_rows(weight if columns is None else weight * columns)
        self.register_buffer("weight", values)  # [out, in]
        self.register_buffer("scales", scales)  # [out, 1]
        self.register_buffer("bias", layer.bias.detach())
        self.out_features = layer.out_features

    weight: Tensor
    scales: Tensor

    def with_bias(self, x: Tensor | Quantized, bias: Tensor) -> Tensor:
        x = x if isinstance(x, Quantized) else quantize_rows(x)
        weight = Quantized(self.weight, self.scales)
        return multiply(x, weight, bias, dtype_of_products(x.scales))


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
