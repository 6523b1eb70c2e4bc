"""The kernels that quantise against the plain form; on a CPU through Triton's interpreter."""

import re

import pytest
import torch

from model.kernels import ACTIVATIONS, Fp8Linear, Quantized, check_fp8, fp8, quantize_rows
from tests.model.kernels.interpreted import relative_error, run_interpreted

triton_fp8 = pytest.importorskip("model.kernels.triton_fp8", reason="Triton is for NVIDIA's GPUs")
ON_GPU = torch.cuda.is_available()
WIDTHS = (768, 20)


def rows(width, device, dtype):
    """Some of zeros, some small, some with a number that is far larger than the others."""
    torch.manual_seed(0)
    x = torch.randn(3, 7, width, device=device) * torch.logspace(-4, 3, 7, device=device)[:, None]
    x[0, 0] = 0
    x[1, :, 3] *= 100
    return x.to(dtype)


def rounded_otherwise(got, want: Quantized) -> float:
    """The share of numbers that were rounded to the other side."""
    values, scales = (part.cpu() for part in got)
    got = Quantized(values.to(torch.float8_e4m3fn), scales)
    torch.testing.assert_close(got.scales, want.scales, rtol=1e-3, atol=0)  # gelu's is an approximation
    assert got.values.shape == want.values.shape
    difference = (got.values.float() - want.values.float()).abs()
    assert (difference <= want.values.float().abs() / 8 + 2**-9).all()  # one step of e4m3
    return (difference > 0).float().mean().item()


def plain(x: torch.Tensor) -> Quantized:
    return quantize_rows(x.cpu())


def compare(width, device, dtype):
    """Shares of numbers that were rounded to the other side than in the plain form."""
    x, branch = rows(width, device, dtype), rows(width, device, dtype).flip(0)
    norm = torch.nn.LayerNorm(width, device=device)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.weight[1] *= 30
    shares = [rounded_otherwise(triton_fp8.quantize(x), plain(x))]
    for added in (None, branch):
        total, *got = triton_fp8.add_layer_norm_fp8(x, added, norm.weight, norm.bias, norm.eps, True)
        want = x if added is None else x + added
        assert total.numel() == 0 if added is None else torch.equal(total, want)
        shares.append(rounded_otherwise(got, plain(norm(want.float()).detach())))
    for name, activation in ACTIVATIONS.items():
        got = triton_fp8.quantize(x, name)
        shares.append(rounded_otherwise(got, plain(activation(x.float()))))
    return shares


def interpreted_cases():
    triton_fp8.VALUES = torch.float32  # rounded above: the interpreter loses carries into the exponent
    for width in WIDTHS:
        worst = max(compare(width, "cpu", torch.float32))
        print(width, worst)
        assert worst < 0.01, (width, worst)


@pytest.mark.heavy
@pytest.mark.skipif(ON_GPU, reason="here the compiled kernels are tested")
def test_kernels_equal_the_plain_form_in_the_interpreter():
    assert len(run_interpreted(__name__, "interpreted_cases").splitlines()) == len(WIDTHS)


@pytest.mark.skipif(not ON_GPU, reason="the compiled kernels need a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [*WIDTHS, 1280, 5120])
def test_compiled_kernels_equal_the_plain_form(width, dtype):
    assert max(compare(width, "cuda", dtype)) < 0.01  # bf16 meets more ties


@pytest.mark.skipif(not ON_GPU, reason="the product needs a GPU")
def test_the_product_on_a_gpu_equals_the_plain_form():
    layer = torch.nn.Linear(768, 48)
    x = rows(768, "cpu", torch.bfloat16)
    want = Fp8Linear(layer)(x)
    layer, x = layer.cuda(), x.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        got = Fp8Linear(layer)(x)
    assert got.dtype == torch.bfloat16
    assert relative_error(got.cpu(), want.double()) < 5e-3


def test_rows_have_scales_of_their_own():
    x = rows(64, "cpu", torch.float32)
    quantized = quantize_rows(x)
    peaks = quantized.values.float().abs().amax(-1)
    assert (peaks[x.abs().amax(-1) > 0] == 448).all() and peaks[0, 0] == 0
    error = (quantized.dequantize() - x).abs()
    assert (error <= x.abs() / 16 + quantized.scales * 2**-10).all()  # three bits of mantissa


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(bad):
    x = torch.randn(2, 32)
    x[0, 5] = bad
    y = Fp8Linear(torch.nn.Linear(32, 16))(x)
    assert y[0].isnan().all() and y[1].isfinite().all()


def test_a_layer_is_close_to_float32_and_in_the_dtype_of_autocast():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(256, 128), torch.randn(40, 256)
    quantized = Fp8Linear(layer)
    y = quantized(x)
    assert relative_error(y, layer(x).double()) < 0.05
    assert torch.equal(y, quantized(quantize_rows(x)))
    with torch.autocast("cpu", torch.bfloat16):
        assert quantized(x).dtype == torch.bfloat16


def test_devices_without_fp8_are_refused(monkeypatch):
    check_fp8(torch.device("cpu"))
    with pytest.raises(ValueError, match="needs an NVIDIA GPU, not mps; use bf16"):
        check_fp8(torch.device("mps"))
    monkeypatch.setattr(fp8.torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(fp8.torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    with pytest.raises(ValueError, match=re.escape("NVIDIA A100 has 8.0: use bf16")):
        check_fp8(torch.device("cuda"))
