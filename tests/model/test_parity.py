"""The three models against the official code: the same numbers from the same weights and inputs."""

import json

import pytest
import torch
import torch.nn.functional as F

from CLIP import tokenize as clip_tokenize
from model.loss import NormSoftmaxLoss, sort_loss
from model.metric import sim_matrix
from OpenCLIP import tokenize as openclip_tokenize
from tests.model.golden import GOLDEN, golden_keep, golden_model, golden_video, read_golden
from tests.model.memory import give_back

PARAMETERS = {  # with and without the sort head
    "B_32": (185_962_244, 179_653_376),
    "B_16": (184_305_668, 177_996_800),
    "H_14": (1_221_286_404, 1_196_085_760),
}


class Case:
    def __init__(self, short_name: str):
        self.name = short_name
        self.facts, self.outputs = read_golden(short_name)
        self.seed = self.facts["seed"]
        self.text = self.outputs["token_ids"].long()
        # The official outputs were made with nothing frozen.
        text_blocks = 24 if short_name == "H_14" else 12
        self.model = golden_model(f"TVTSv2_{short_name}", trained_text_blocks=text_blocks)

    def train_inputs(self) -> dict:
        keep = golden_keep(self.facts["n_keep"], self.facts["patches_per_frame"], self.seed + 1)
        return {
            "video": golden_video(self.facts["frames_train"], self.seed),
            "keep_ind": keep,
            "text": self.text,
        }

    def check(self, name: str, got: torch.Tensor, samples=...) -> None:
        """Within 2e-4 of the largest absolute value."""
        want = self.outputs[name][samples]
        assert got.shape == want.shape
        assert (got - want).abs().max() <= 2e-4 * want.abs().max(), name


@pytest.fixture(
    scope="module",
    params=[
        "B_32",
        pytest.param("B_16", marks=pytest.mark.heavy),
        pytest.param("H_14", marks=pytest.mark.heavy),
    ],
)
def case(request):
    case = Case(request.param)
    yield case
    case.model = None  # H/14 is 5 GB, and as much again for its gradients
    give_back()


def test_names_shapes_and_parameter_counts(case):
    shapes = {name: list(tensor.shape) for name, tensor in case.model.state_dict().items()}
    assert shapes == case.facts["state_dict"]
    sizes = {name: p.numel() for name, p in case.model.named_parameters()}
    without_sort_head = sum(size for name, size in sizes.items() if not name.startswith("pred_model."))
    assert (sum(sizes.values()), without_sort_head) == PARAMETERS[case.name]


def test_token_ids(case):
    tokenize = openclip_tokenize if case.name == "H_14" else clip_tokenize
    sentences = json.loads((GOLDEN / "sentences.json").read_text())
    assert torch.equal(tokenize(sentences), case.text)


@torch.no_grad()
def test_evaluation_outputs(case):
    model = case.model.eval()
    both, first, second = slice(None), slice(0, 1), slice(1, 2)
    # An embedding does not depend on the other samples: of a minute's arithmetic half is enough.
    long_clips = (first, second) if case.name == "H_14" else (both, both)
    for frames, samples in zip((1, 12, 5), (both, *long_clips), strict=True):
        video = golden_video(frames, case.seed + 2)[samples]
        case.check(f"eval_video_embeds_T{frames}", model.encode_video(video)[0], samples)
    case.check("eval_text_embeds", model.encode_text(case.text))


@torch.no_grad()
def test_bf16_autocast_keeps_the_embeddings_direction(case):
    with torch.autocast("cpu", torch.bfloat16):
        video_embeds, _ = case.model.eval().encode_video(golden_video(1, case.seed + 2))
        text_embeds = case.model.encode_text(case.text)
    for got, name in ((video_embeds, "eval_video_embeds_T1"), (text_embeds, "eval_text_embeds")):
        assert F.cosine_similarity(got.float(), case.outputs[name]).min() >= 0.999


def test_training_outputs_losses_and_gradients(case):
    model, inputs = case.model.train(), case.train_inputs()
    seen_by_sort_head = {}
    hook = model.pred_model.register_forward_pre_hook(
        lambda _, args: seen_by_sort_head.update(tokens=args[0])
    )
    out = model(inputs)
    hook.remove()
    case.check("train_video_embeds", out.video_embeds)
    case.check("train_text_embeds", out.text_embeds)
    case.check("train_tokens_slice", seen_by_sort_head["tokens"][:, ::37, ::61])
    case.check("train_order_logits", out.order_logits)

    contrastive = NormSoftmaxLoss()(sim_matrix(out.video_embeds, out.text_embeds))
    sorting = sort_loss(out.order_logits)
    case.check("loss_vtc", contrastive)
    case.check("loss_ts", sorting)

    (contrastive + sorting).backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    assert norms.keys() == case.facts["grad_norms"].keys()
    for name, want in case.facts["grad_norms"].items():
        if want > 1e-6:
            assert norms[name] == pytest.approx(want, rel=5e-3), name
    model.zero_grad()
