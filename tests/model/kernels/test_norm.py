"""The kernel of residual sum and LayerNorm against PyTorch's; on a CPU through Triton's interpreter."""

import pytest
import torch
from torch.nn import functional as F

from model.kernels import Projected, add_norm, project_branch
from tests.model.kernels.interpreted import relative_error, run_interpreted

triton_norm = pytest.importorskip("model.kernels.triton_norm", reason="Triton is for NVIDIA's GPUs")
ON_GPU = torch.cuda.is_available()
WIDTHS = (768, 20)


def compare(width, has_branch, device, dtype):
    """Relative errors of both outputs and of every gradient."""
    torch.manual_seed(0)
    x, branch = (torch.randn(2, 7, width, device=device).to(dtype).requires_grad_() for _ in range(2))
    weight, bias = (torch.randn(width, device=device).requires_grad_() for _ in range(2))
    branch_bias = torch.randn(width, device=device).requires_grad_()
    given = [x, weight, bias] + ([branch, branch_bias] if has_branch else [])
    total, normed, *_ = triton_norm.add_layer_norm(
        x,
        (branch + branch_bias.detach()).to(dtype) if has_branch else None,
        branch_bias if has_branch else None,
        *(weight, bias, 1e-5),
    )

    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    want_total = exact[0] + (exact[3] + exact[4] if has_branch else 0)
    # The sum is rounded before it is normalised, as a sum outside the kernel would be.
    rounded = want_total + (want_total.to(dtype).double() - want_total).detach()
    want_normed = F.layer_norm(rounded, (width,), exact[1], exact[2], 1e-5)

    for_total, for_normed = torch.randn_like(x), torch.randn_like(x)
    score = (normed * for_normed).sum() + ((total * for_total).sum() if has_branch else 0)
    want_score = (want_normed * for_normed.double()).sum()
    if has_branch:
        want_score = want_score + (want_total * for_total.double()).sum()
    pairs = [(normed, want_normed)] + ([(total, want_total)] if has_branch else [])
    pairs += zip(torch.autograd.grad(score, given), torch.autograd.grad(want_score, exact), strict=True)
    return [relative_error(got, want) for got, want in pairs]


def interpreted_cases():
    triton_norm.PROCESSORS = 1  # programs without work take the interpreter time, too
    for width in WIDTHS:
        for has_branch in (True, False):
            worst = max(compare(width, has_branch, "cpu", torch.float32))
            print(width, has_branch, f"{worst:.1e}")
            assert worst < 1e-5, (width, has_branch, worst)


@pytest.mark.skipif(ON_GPU, reason="here the compiled kernel is tested")
def test_kernel_equals_pytorch_in_the_interpreter():
    assert len(run_interpreted(__name__, "interpreted_cases").splitlines()) == 4


@pytest.mark.skipif(not ON_GPU, reason="the compiled kernel needs a GPU")
@pytest.mark.parametrize("has_branch", [True, False])
@pytest.mark.parametrize("width", [*WIDTHS, 1280])
def test_compiled_kernel_equals_pytorch(width, has_branch):
    assert max(compare(width, has_branch, "cuda", torch.bfloat16)) < 1e-2
    assert max(compare(width, has_branch, "cuda", torch.float32)) < 1e-5


def test_the_plain_form_on_a_cpu():
    norm, proj = torch.nn.LayerNorm(12), torch.nn.Linear(8, 12)
    x, y = torch.randn(2, 3, 12), torch.randn(2, 3, 8)
    branch = project_branch(y, proj)
    assert isinstance(branch, Projected) and torch.equal(branch.value, proj(y)) and branch.bias is None
    for given, want in ((branch, x + proj(y)), (proj(y), x + proj(y)), (None, x)):
        total, normed = add_norm(x, given, norm)
        assert torch.equal(total, want)
        assert torch.equal(normed, norm(want))
