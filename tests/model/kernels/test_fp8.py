"""The kernels that quantise against the plain form; on a CPU through Triton's interpreter."""

import re

import pytest
import torch

from model.kernels import (
    ACTIVATIONS,
    Fp8Linear,
    Quantized,
    TrainedFp8Linear,
    check_fp8,
    fp8,
    multiply_mlp,
    quantize_rows,
)
from model.kernels.activation import activation_backward
from tests.model.kernels.interpreted import relative_error, run_interpreted

triton_fp8 = pytest.importorskip("model.kernels.triton_fp8", reason="Triton is for NVIDIA's GPUs")
triton_norm = pytest.importorskip("model.kernels.triton_norm")
triton_attention = pytest.importorskip("model.kernels.triton_attention")
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
    assert not difference.isnan().any()
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
        normed = plain(norm(want.float()).detach())
        shares.append(rounded_otherwise(got, normed))
        *_, values, scales = triton_norm.add_layer_norm(
            x, added, None, norm.weight, norm.bias, norm.eps, True
        )
        shares.append(rounded_otherwise((values, scales), normed))
    for name, activation in ACTIVATIONS.items():
        got = triton_fp8.quantize(x, name)
        shares.append(rounded_otherwise(got, plain(activation(x.float()))))
        *got, bias_parts = triton_fp8.activation_backward(branch, x, name)
        want_out, want, want_bias = activation_backward(branch.cpu().float(), x.cpu().float(), name)
        shares += [rounded_otherwise(got[:2], want_out), rounded_otherwise(got[2:], want)]
        bound = 1e-3 if dtype == torch.float32 else 1e-2
        assert relative_error(bias_parts.sum(0).cpu(), want_bias.double().sum(0)) < bound
    return shares


def compare_transposed(device, stored):
    """Exactly the plain form's, of a tensor whose rows are no multiple of 16."""
    x = plain(rows(40, "cpu", torch.float32).flatten(0, 1))
    largest = x.scales.amax()
    got = triton_fp8.transpose(x.values.to(device, stored), x.scales.to(device), largest.to(device))
    want = fp8.transpose(x)
    assert got.shape == want.values.shape == (40, 32)
    assert torch.equal(got.cpu().to(torch.float8_e4m3fn).float(), want.values.float())


def compare_attention(device, dtype):
    """Attention that writes e4m3 numbers against attention that does not."""
    torch.manual_seed(0)
    qkv, bias = torch.randn(2, 1 + 3 * 5, 3 * 32, device=device).to(dtype), torch.zeros(96, device=device)
    factors = 2.0 ** torch.randint(3, 7, (32,), device=device)
    for over_time in (False, True):
        got = triton_attention.divided_attention_fp8(qkv, 3, 2, over_time, factors)
        want = triton_attention.divided_attention(qkv, bias, 3, 2, over_time)
        error = (got.float() / factors - want.float()).abs()
        assert (error <= want.float().abs() / 14 + 2**-10 / factors).all()


def interpreted_cases():
    triton_fp8.VALUES = torch.float32  # rounded above: the interpreter loses carries into the exponent
    triton_fp8.GRAD_PROGRAMS = 2
    compare_transposed("cpu", torch.float32)
    compare_attention("cpu", torch.float32)
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


@pytest.mark.skipif(not ON_GPU, reason="the compiled kernel needs a GPU")
def test_compiled_attention_writes_e4m3():
    compare_attention("cuda", torch.bfloat16)


@pytest.mark.skipif(not ON_GPU, reason="the compiled kernel needs a GPU")
def test_the_compiled_kernel_transposes_as_the_plain_form():
    compare_transposed("cuda", torch.float8_e4m3fn)


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
    assert ((peaks >= 224) & (peaks <= 448))[x.abs().amax(-1) > 0].all() and peaks[0, 0] == 0
    assert (quantized.scales.log2() % 1 == 0).all()
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


@pytest.mark.parametrize(
    ("peak", "scale"), [(448, 1), (448.1, 2), (224, 0.5), (1, 2**-8), (1.76, 2**-7), (7e20, 2.0**61)]
)
def test_scales_are_the_least_powers_of_two_that_do(peak, scale):
    assert fp8.scales_for(torch.tensor(float(peak))) == scale


def test_transposed_numbers_are_the_same_where_they_are_not_tiny():
    x = quantize_rows(rows(64, "cpu", torch.float32).flatten(0, 1))
    transposed = fp8.transpose(x)
    assert transposed.values.shape == (64, 32) and (transposed.values[:, 21:].float() == 0).all()
    want, got = x.dequantize().t(), transposed.dequantize()[:, :21]
    kept = want.abs() >= transposed.scales * 2**-6
    assert torch.equal(got[kept], want[kept])
    assert (got - want).abs().max() <= transposed.scales * 2**-10


def gradients_of(function, layers, x, weights):
    x = x.clone().requires_grad_()
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    y = function(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *parameters], weights)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_of_layers_are_close_to_float32(name):
    torch.manual_seed(0)
    first, second = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64)
    fast_first, fast_second = TrainedFp8Linear(first), TrainedFp8Linear(second)
    assert fast_first.weight is first.weight and fast_first.bias is first.bias
    activation = ACTIVATIONS[name]
    x, weights = torch.randn(2, 40, 64), torch.randn(2, 40, 64)
    want = gradients_of(lambda x: second(activation(first(x))), (first, second), x, weights)
    for quantised in (
        lambda x: fast_second(activation(fast_first(x))),
        lambda x: multiply_mlp(x, fast_first, fast_second, name),
    ):
        for got, one in zip(gradients_of(quantised, (first, second), x, weights), want, strict=True):
            assert relative_error(got, one.double()) < 0.08


def test_weights_get_gradients_of_what_was_not_rounded():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    x, weights = torch.randn(40, 64), torch.randn(40, 32)
    _, _, *want = gradients_of(layer, [layer], x, weights)
    _, _, *got = gradients_of(TrainedFp8Linear(layer), [layer], x, weights)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_sums_over_tokens_are_close_to_float32():
    torch.manual_seed(0)
    a, b = torch.randn(3, 7, 48), torch.randn(3, 7, 32) * torch.logspace(-3, 0, 7)[:, None]
    want = a.flatten(0, 1).double().t() @ b.flatten(0, 1).double()
    got = fp8.multiply_over_tokens(quantize_rows(a), quantize_rows(b), torch.float32, torch.bfloat16)
    assert got.dtype == torch.bfloat16 and relative_error(got, want) < 0.05


@pytest.mark.skipif(not ON_GPU, reason="the product needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_over_tokens_on_a_gpu_equal_the_plain_form(dtype):
    a, b = (quantize_rows(rows(width, "cpu", torch.bfloat16)) for width in (48, 768))
    want = fp8.multiply_over_tokens(a, b, torch.float32, torch.float32)
    a, b = (Quantized(x.values.cuda(), x.scales.cuda()) for x in (a, b))
    got = fp8.multiply_over_tokens(a, b, torch.bfloat16, dtype)
    assert got.dtype == dtype and relative_error(got.cpu(), want.double()) < 5e-3


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias")])
def test_frozen_parameters_get_no_gradient(frozen):
    layer = TrainedFp8Linear(torch.nn.Linear(32, 16))
    for name in frozen:
        getattr(layer, name).requires_grad_(False)
    x = torch.randn(4, 32, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert all((getattr(layer, name).grad is None) == (name in frozen) for name in ("weight", "bias"))


def test_gradients_that_are_not_finite_show():
    layer = TrainedFp8Linear(torch.nn.Linear(32, 16))
    x = torch.randn(2, 32, requires_grad=True)
    layer(x).backward(torch.tensor([[float("inf")], [1.0]]).expand(2, 16))
    assert x.grad[0].isnan().all() and x.grad[1].isfinite().all()
    assert not layer.weight.grad.isfinite().any()


def test_devices_without_fp8_are_refused(monkeypatch):
    check_fp8(torch.device("cpu"))
    with pytest.raises(ValueError, match="needs an NVIDIA GPU, not mps; use bf16"):
        check_fp8(torch.device("mps"))
    monkeypatch.setattr(fp8.torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(fp8.torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    with pytest.raises(ValueError, match=re.escape("NVIDIA A100 has 8.0: use bf16")):
        check_fp8(torch.device("cuda"))
