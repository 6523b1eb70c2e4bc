"""The Triton kernels against attention written out; on a CPU through Triton's interpreter."""

import pytest
import torch

from model import create_model
from model.kernels.attention import LARGEST_HEAD, LONGEST_BACKWARD
from tests.model.kernels.interpreted import relative_error, run_interpreted
from tests.model.reference import allowed_pairs, plain_attention

triton_attention = pytest.importorskip("model.kernels.triton_attention", reason="Triton is for NVIDIA's GPUs")
ON_GPU = torch.cuda.is_available()

# frames, patches a frame, heads, head size: one tile and several, a last tile half full, keys in several
# blocks, images, head sizes that are no power of two: padded, and in two pieces.
CASES = [(3, 5, 2, 16), (12, 9, 1, 16), (12, 11, 1, 20), (1, 7, 2, 16), (2, 70, 1, 16), (1, 130, 1, 16)]
CASES += [(3, 5, 2, 80), (12, 8, 1, 80), (1, 130, 1, 80), (3, 7, 2, 96)]


def compare(over, frames, patches, heads, size, device, dtype):
    """Relative errors: output and gradient of all tokens, of the class token alone, the bias's gradient."""
    torch.manual_seed(0)
    shape = (2, 1 + frames * patches, 3 * heads * size)
    qkv = torch.randn(shape, device=device).to(dtype).requires_grad_()
    bias = torch.zeros(shape[-1], device=device, requires_grad=True)
    got = triton_attention.divided_attention(qkv, bias, frames, heads, over == "time")
    exact = qkv.detach().double().requires_grad_()
    q, k, v = exact.view(*shape[:2], 3, heads, size).unbind(2)
    want = plain_attention(q, k, v, allowed_pairs(frames, patches, over).to(device)).flatten(2)
    weights = torch.randn_like(got)
    got_grad, got_bias_grad = torch.autograd.grad(got, [qkv, bias], weights)
    (want_grad,) = torch.autograd.grad(want, exact, weights.double())
    pairs = [(got, want), (got_grad, want_grad)]
    pairs += [(one[:, 0], other[:, 0]) for one, other in pairs]
    pairs.append((got_bias_grad, want_grad.sum((0, 1))))
    return [relative_error(*pair) for pair in pairs]


def sharp_error(over, device, dtype):
    """Relative error of the output where the class query finds its own key far above all others."""
    torch.manual_seed(0)
    qkv = torch.randn(2, 1 + 3 * 70, 3 * 2 * 16, device=device).to(dtype)
    q, k, v = qkv.view(*qkv.shape[:2], 3, 2, 16).unbind(2)
    k[:, 0] = 100 * q[:, 0]
    got = triton_attention.divided_attention(qkv, qkv.new_zeros(3 * 2 * 16), 3, 2, over == "time")
    pairs = allowed_pairs(3, 70, over).to(device)
    return relative_error(got, plain_attention(q.double(), k.double(), v.double(), pairs).flatten(2))


def interpreted_cases():
    for over in ("space", "time"):
        for case in CASES:
            worst = max(compare(over, *case, "cpu", torch.float32))
            print(over, *case, f"{worst:.1e}")
            assert worst < 1e-5, (over, case, worst)
        assert sharp_error(over, "cpu", torch.float32) < 1e-5, over


@pytest.mark.heavy
@pytest.mark.skipif(ON_GPU, reason="here the compiled kernels are tested")
def test_kernels_equal_plain_attention_in_the_interpreter():
    printed = run_interpreted(__name__, "interpreted_cases")
    assert len(printed.splitlines()) == 2 * len(CASES)


@pytest.mark.skipif(not ON_GPU, reason="compiled kernels need a GPU")
@pytest.mark.parametrize("over", ["space", "time"])
@pytest.mark.parametrize("case", [*CASES, (12, 98, 12, 64), (12, 49, 12, 64), (12, 76, 16, 80)])
def test_compiled_kernels_equal_plain_attention(over, case):
    assert max(compare(over, *case, "cuda", torch.bfloat16)) < 1e-2
    assert max(compare(over, *case, "cuda", torch.float32)) < 1e-5
    assert sharp_error(over, "cuda", torch.bfloat16) < 1e-2


@pytest.mark.skipif(not ON_GPU, reason="compiled kernels need a GPU")
def test_the_largest_tiles_fit_the_shared_memory():
    assert max(compare("space", 2, LONGEST_BACKWARD, 1, LARGEST_HEAD, "cuda", torch.bfloat16)) < 1e-2


@pytest.mark.skipif(not ON_GPU, reason="compiled kernels need a GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_model_with_kernels_equals_the_model_without(compiled):
    torch.manual_seed(0)
    models = [create_model("TVTSv2_Demo", attention=kind).cuda() for kind in ("auto", "sdpa")]
    models[1].load_state_dict(models[0].state_dict())
    if compiled:
        models[0].compile_towers()
    video = torch.randint(0, 256, (2, 5, 3, 64, 64), dtype=torch.uint8).cuda()
    gradients = []
    for model in models:
        with torch.autocast("cuda", torch.bfloat16):
            embeds, tokens = model.encode_video(video)
        (embeds.float().square().sum() + tokens.float().square().sum()).backward()
        gradients.append({n: p.grad for n, p in model.video_model.named_parameters()})
    for name, want in gradients[1].items():
        assert relative_error(gradients[0][name], want.double()) < 3e-2, name
