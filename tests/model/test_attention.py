import pytest
import torch

from model import create_model
from model.attention import DividedAttention
from model.kernels import ATTENTION_BACKENDS, activate, attend
from model.kernels.activation import quick_gelu
from tests.model.reference import plain_attention, plain_divided_attention


@pytest.mark.parametrize("over", ["space", "time"])
@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_divided_attention_equals_masked_attention(over, num_frames, backend):
    torch.manual_seed(0)
    module = DividedAttention(16, 2, over, backend)
    x = torch.randn(2, 1 + num_frames * 5, 16, requires_grad=True)
    got, want = module(x, num_frames).value, plain_divided_attention(module, x, num_frames)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(got)
    (got_grad,) = torch.autograd.grad((got * weights).sum(), x)
    (want_grad,) = torch.autograd.grad((want * weights).sum(), x)
    torch.testing.assert_close(got_grad, want_grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attend_equals_softmax_written_out(causal):
    q, k, v = (torch.randn(2, 6, 3, 4) for _ in range(3))
    allowed = torch.ones(6, 6).tril().bool() if causal else None
    torch.testing.assert_close(attend(q, k, v, causal=causal), plain_attention(q, k, v, allowed))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="these kernels need a GPU")
@pytest.mark.parametrize("backend", sorted(ATTENTION_BACKENDS))
def test_every_backend_agrees_on_a_gpu(backend):
    q, k, v = (torch.randn(2, 9, 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    want = plain_attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(attend(q, k, v, backend).float(), want, atol=2e-2, rtol=2e-2)


def test_backend_is_chosen_by_name():
    models = {backend: create_model("TVTSv2_Demo", attention=backend) for backend in ("sdpa", "math")}
    models["math"].load_state_dict(models["sdpa"].state_dict())
    video = torch.randn(1, 3, 3, 64, 64)
    outputs = [model.encode_video(video)[0] for model in models.values()]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="unknown attention 'fast'; there are auto, sdpa"):
        create_model("TVTSv2_Demo", attention="fast")


def test_zero_start_adds_nothing_and_learns_through_the_values_alone():
    module = DividedAttention(8, 2, "time")
    module.zero_init()
    out = module(torch.randn(1, 7, 8), 3).value
    assert not out.any()
    (out * torch.randn_like(out)).sum().backward()
    for_q_and_k, for_v = module.qkv.bias.grad.split([16, 8])
    assert not for_q_and_k.any()
    assert for_v.any()


def test_quick_gelu_value_and_gradient():
    x = torch.linspace(-8, 8, 101, dtype=torch.float64, requires_grad=True)
    want = x * torch.sigmoid(1.702 * x)
    torch.testing.assert_close(quick_gelu(x), want)
    (want_grad,) = torch.autograd.grad(want.sum(), x)
    (got_grad,) = torch.autograd.grad(quick_gelu(x).sum(), x)
    torch.testing.assert_close(got_grad, want_grad)


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
def test_activation_without_gradient_has_the_same_bits_and_with_one_leaves_its_input(kind):
    hidden = torch.randn(3, 5, 16)
    with_gradient = activate(before := hidden.clone().requires_grad_(), None, kind)
    assert torch.equal(before, hidden)
    with torch.no_grad():
        assert torch.equal(activate(hidden, None, kind), with_gradient)
