"""The kernels of the MLP's activation against PyTorch's; on a CPU through Triton's interpreter."""

import pytest
import torch

from model.kernels import ACTIVATIONS, activate
from tests.model.kernels.interpreted import relative_error, run_interpreted

pytest.importorskip("triton", reason="Triton is for NVIDIA's GPUs")
ON_GPU = torch.cuda.is_available()
SHAPES = ((2, 7, 20), (600, 130))  # less than a tile; parts and tiles half full


def compare(kind, shape, device, dtype):
    """Relative errors of the output and of both gradients."""
    torch.manual_seed(0)
    x = (2 * torch.randn(shape, device=device)).to(dtype)
    bias = torch.randn(shape[-1], device=device).to(dtype).requires_grad_()
    hidden = (x + bias.detach()).requires_grad_()
    weights = torch.randn_like(x)
    got = activate(hidden, bias, kind)
    exact = hidden.detach().double().requires_grad_()
    want = ACTIVATIONS[kind](exact)
    got_grads = torch.autograd.grad(got, [hidden, bias], weights)
    (want_grad,) = torch.autograd.grad(want, exact, weights.double())
    want_bias_grad = want_grad.flatten(0, -2).sum(0)
    pairs = [(got, want), (got_grads[0], want_grad), (got_grads[1], want_bias_grad)]
    return [relative_error(*pair) for pair in pairs]


def interpreted_cases():
    for kind in ACTIVATIONS:
        for shape in SHAPES:
            worst = max(compare(kind, shape, "cpu", torch.float32))
            print(kind, shape, f"{worst:.1e}")
            assert worst < 1e-5, (kind, shape, worst)


@pytest.mark.heavy
@pytest.mark.skipif(ON_GPU, reason="here the compiled kernels are tested")
def test_kernels_equal_pytorch_in_the_interpreter():
    assert len(run_interpreted(__name__, "interpreted_cases").splitlines()) == 2 * len(SHAPES)


@pytest.mark.skipif(not ON_GPU, reason="compiled kernels need a GPU")
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("shape", [*SHAPES, (2000, 3072), (700, 5120)])
def test_compiled_kernels_equal_pytorch(kind, shape):
    assert max(compare(kind, shape, "cuda", torch.bfloat16)) < 1e-2
    assert max(compare(kind, shape, "cuda", torch.float32)) < 1e-5
