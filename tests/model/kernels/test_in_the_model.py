"""The model with all of its Triton kernels against the model without, on a CPU by Triton's interpreter."""

from contextlib import contextmanager

import pytest
import torch
from torch.profiler import profile

from model import create_model
from model.fp8 import train_in_fp8
from model.kernels import activation, fp8, norm, projection
from tests.model.kernels.interpreted import relative_error, run_interpreted
from tests.model.test_text_encoder import random_ids

triton_norm = pytest.importorskip("model.kernels.triton_norm", reason="Triton is for NVIDIA's GPUs")
triton_fp8 = pytest.importorskip("model.kernels.triton_fp8")
OPERATORS = {
    f"tvtsv2::{name}"
    for name in (
        *("activation_forward", "activation_backward", "add_layer_norm", "add_layer_norm_backward"),
        *("divided_attention_forward", "divided_attention_backward"),
    )
}
FP8_OPERATORS = OPERATORS | {"tvtsv2::quantize_fp8", "tvtsv2::activation_backward_fp8"}
SMALL = {"video_layers": 2, "text_layers": 2, "trained_text_blocks": 1}


def outputs_and_gradients(model, batch):
    out = model(batch)
    model.zero_grad()
    sum(x.float().square().sum() for x in out if x is not None).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"text": out.text_embeds, "video": out.video_embeds, "order": out.order_logits, **gradients}


@contextmanager
def with_kernels():
    """The kernels run on the CPU and in float32, too. Gives the operators that ran."""
    ran = set()
    with pytest.MonkeyPatch.context() as patch, profile() as profiler:
        for module in (projection, norm, activation):
            patch.setattr(module, "kernels_take", lambda *_: True)
        patch.setattr(fp8, "kernels_quantize", lambda _: True)
        yield ran
    ran |= {event.name for event in profiler.events() if event.name.startswith("tvtsv2::")}


def interpreted_cases():
    triton_norm.PROCESSORS = 1  # programs without work take the interpreter time, too
    triton_fp8.GRAD_PROGRAMS = 2
    triton_fp8.VALUES = torch.float32  # so that nothing is rounded
    for checkpointing, in_fp8 in ((0, False), ("mlp", False), (1, False), (1, True)):
        torch.manual_seed(0)
        model = create_model("TVTSv2_Demo", **SMALL, activation_checkpointing=checkpointing)
        batch = {
            "video": torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8),
            "keep_ind": torch.stack([torch.randperm(16)[:7] for _ in range(2)]),
            "text": random_ids([7, 5] * 4),
        }
        want = outputs_and_gradients(model, batch)
        if in_fp8:
            train_in_fp8(model)
        with with_kernels() as ran:
            got = outputs_and_gradients(model, batch)
        assert ran == (FP8_OPERATORS if in_fp8 else OPERATORS)
        assert got.keys() == want.keys()
        errors = {name: relative_error(got[name], want[name].double()) for name in want}
        worst = max(errors, key=errors.get)
        print(checkpointing, in_fp8, worst, f"{errors[worst]:.1e}")
        assert errors[worst] < 1e-4, (checkpointing, in_fp8, worst, errors[worst])


@pytest.mark.heavy
@pytest.mark.skipif(torch.cuda.is_available(), reason="here the compiled kernels are tested")
def test_outputs_and_gradients_in_the_interpreter():
    assert len(run_interpreted(__name__, "interpreted_cases").splitlines()) == 4
