"""Several real processes against one on the whole batch: losses, gradients, weights and checkpoints agree."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model import create_model, load_checkpoint
from model.checkpoint import CheckpointError, read_state_dict
from tests.trainer import steps
from tests.trainer.runs import DEVICES

pytestmark = pytest.mark.heavy  # nearly all of them look at the same twenty small runs, which take a minute

LEAST_MEMORY = {"blocks_per_unit": 1, "reshard_after_forward": True}
ONE = {
    "one": {},
    "one-clipped": {"max_norm": 1.0},
    "one-in-parts": {"accumulate": 3},
    "one-bf16": {"number_format": "bf16", "accumulate": 2, "steps": 1},
    "one-fp8": {"number_format": "fp8", "steps": 1},
    "one-fsdp-fp8": {"engine": "fsdp", "number_format": "fp8", "steps": 1},
    "one-fsdp-compiled": {"engine": "fsdp", "compiled": True, "checkpointing": 1, "steps": 1},
    "one-fsdp-in-parts": {"engine": "fsdp", "accumulate": 2, "scaled": True},
}
TWO = {
    "ddp-exact": {"save": "two.pth"},
    "ddp-official": {"gather": "official"},
    "ddp-lean-in-parts": {"gather": "lean", "accumulate": 2, "scaled": True},
    "fsdp-exact": {"engine": "fsdp", "scaled": True, "save": "two.dcp"},
    "fsdp-lean-validated": {"engine": "fsdp", "gather": "lean", "checkpointing": 1, "validate": True},
    "fsdp-resharded-validated": {"engine": "fsdp", "fsdp": LEAST_MEMORY, "validate": True},
    "fsdp-in-parts-clipped": {"engine": "fsdp", "accumulate": 3, "max_norm": 1.0},
    "fsdp-fp8": {"engine": "fsdp", "number_format": "fp8", "checkpointing": 1, "steps": 1},
    "ddp-fp8": {"number_format": "fp8", "steps": 1},
    "ddp-compiled": {"compiled": True, "checkpointing": 1, "steps": 1},
}
FOUR = {
    "ddp-lean-on-four": {"gather": "lean"},
    "two.pth-on-four-fsdp": {"engine": "fsdp", "load": "two.pth"},
    "two.dcp-on-four-fsdp": {"engine": "fsdp", "load": "two.dcp"},
    "two.dcp-on-four-ddp": {"load": "two.dcp"},
    "numbered-two.dcp-on-four-fsdp": {"engine": "fsdp", "load": "numbered-two.dcp"},
    "nan-two.dcp-on-four-fsdp": {"engine": "fsdp", "load": "nan-two.dcp"},
}
IN_FP8 = ("one-fp8", "one-fsdp-fp8", "fsdp-fp8", "ddp-fp8")
DIFFERENT = ("one", "one-clipped", "one-bf16", *IN_FP8, "ddp-official", "nan-two.dcp-on-four-fsdp")
AS_ONE = [name for name in (*ONE, *TWO, *FOUR) if name not in DIFFERENT]


@pytest.fixture(scope="module", params=DEVICES)
def folder(tmp_path_factory, starter, request) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("steps")

    def begin(processes: int, cases: dict[str, dict], device: str) -> list:
        listed = folder / f"cases{processes}.json"
        listed.write_text(json.dumps(cases))
        arguments = [str(folder), str(listed), device]
        return starter.ranks(processes, arguments, folder / f"says{processes}-", steps.main)

    def end(ranks: list) -> None:
        for process in ranks:
            process.join(300)
        said = "".join(path.read_text()[-3000:] for path in sorted(folder.glob("says*")))
        assert [process.exitcode for process in ranks] == [0] * len(ranks), said

    try:
        end(begin(1, ONE, request.param) + begin(2, TWO, request.param))
        end(begin(4, FOUR, "cpu"))
        yield folder
    finally:
        starter.end_all()


@pytest.fixture(scope="module")
def results(folder) -> dict[str, dict]:
    names = (*ONE, *TWO, *FOUR)
    return {name: torch.load(folder / f"{name}.pt", weights_only=True, map_location="cpu") for name in names}


@pytest.mark.parametrize("name", AS_ONE)
def test_losses_gradients_and_weights_are_those_of_one_process(results, name):
    got, want = results[name], results["one-clipped" if name.endswith("clipped") else "one"]
    for step, row in got["rows"].items():
        assert row == pytest.approx(want["rows"][step], rel=1e-5), (name, step)
    assert got["grads"].keys() == (want["grads"].keys() if 0 in got["rows"] else set())
    for parameter, gradient in got["grads"].items():
        torch.testing.assert_close(gradient, want["grads"][parameter], rtol=2e-4, atol=2e-6, msg=parameter)
    if 3 in got["rows"]:
        for parameter, weight in got["weights"].items():  # AdamW makes much of small gradients' rounding
            torch.testing.assert_close(weight, want["weights"][parameter], rtol=0, atol=2e-4, msg=parameter)


def test_steps_with_and_without_sorting_are_among_them(results):
    assert ["sorting" in row for row in results["one"]["rows"].values()] == [True, False, True, False]
    assert results["one-clipped"]["rows"][0]["grad_norm"] > 2  # it is the norm before clipping


def test_half_precision_is_near(results):
    got, want = results["one-bf16"], results["one"]
    assert got["rows"][0] == pytest.approx(want["rows"][0], rel=1e-2)
    for name, weight in got["weights"].items():
        assert weight.dtype == want["weights"][name].dtype == torch.float32


@pytest.mark.parametrize("name", IN_FP8)
def test_fp8_is_near_float32_and_the_same_on_all_engines(results, name, request):
    """But on a GPU FSDP gathers weights in bf16, so that their fp8 numbers are others than DDP's."""
    alike = {"one-fp8"}
    if "fsdp" in name:
        in_bf16 = request.node.callspec.params["folder"] == "cuda"
        alike = {"one-fsdp-fp8"} if in_bf16 else {"one-fp8", "one-fsdp-fp8"}
    got = results[name]
    for other, least in {"one": 0.99, **dict.fromkeys(alike, 0.9999)}.items():
        want = results[other]
        assert got["rows"][0] == pytest.approx(want["rows"][0], rel=3e-2)
        assert got["grads"].keys() == want["grads"].keys()
        gradients = [
            torch.cat([g.double().flatten() for g in each["grads"].values()]) for each in (got, want)
        ]
        assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > least
    different = [n for n, g in got["grads"].items() if not torch.equal(g, results["one"]["grads"][n])]
    assert any("video_model" in parameter for parameter in different)


def test_official_gather_halves_the_contrastive_gradient_on_two_processes(results):
    """The text tower sees the contrastive gradient alone, and the sort head the sorting gradient alone."""
    one, official = results["one"], results["ddp-official"]
    for loss in ("contrastive", "sorting"):
        assert official["rows"][0][loss] == pytest.approx(one["rows"][0][loss], rel=1e-5)
    for name, expected in one["grads"].items():
        if name.startswith("text_"):
            torch.testing.assert_close(official["grads"][name], expected / 2, rtol=2e-4, atol=2e-6, msg=name)
        elif name.startswith("pred_model."):
            torch.testing.assert_close(official["grads"][name], expected, rtol=2e-4, atol=2e-6, msg=name)


def test_lean_gather_never_builds_the_whole_matrix(results):
    assert {name for name in (*TWO, *FOUR) if results[name].get("full_matrix")} == {
        name
        for name, case in (TWO | FOUR).items()
        if case.get("gather") != "lean" and not case.get("compiled") and not name.startswith("nan")
    }


def test_distributed_checkpoint_is_a_weights_file_like_any_other(folder, results):
    """What the two ranks wrote as slices fills a model by itself, as the one file of DDP does."""
    models = []
    for name in ("two.dcp", "two.pth"):
        model = create_model("TVTSv2_Demo", video_layers=2, text_layers=2, trained_text_blocks=1)
        report = load_checkpoint(model, folder / name)
        assert not report.fresh
        assert not report.ignored
        models.append(model.state_dict())
    for name, weights in models[0].items():
        torch.testing.assert_close(weights, models[1][name], rtol=0, atol=2e-4, msg=name)


def test_distributed_checkpoint_that_lacks_a_process_is_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder / "two.dcp", tmp_path / "copy.dcp"))
    lost = min(copy.glob("shard-*.safetensors"))
    lost.unlink()
    with pytest.raises(CheckpointError, match=f"{lost.name} missing or cut short"):
        read_state_dict(copy)


def test_older_distributed_checkpoint_that_numbers_the_parameters_goes_on_to_the_bit(folder, results):
    keys = {
        name: {key for file in (folder / name).glob("*.safetensors") for key in load_file(file)}
        for name in ("two.dcp", "numbered-two.dcp")
    }
    assert "optimizer.video_model.conv1.weight.exp_avg" in keys["two.dcp"]
    assert "optimizer.0.exp_avg" in keys["numbered-two.dcp"]
    by_name, by_number = results["two.dcp-on-four-fsdp"], results["numbered-two.dcp-on-four-fsdp"]
    assert by_number["rows"] == by_name["rows"]
    for name, weight in by_name["weights"].items():
        assert torch.equal(by_number["weights"][name], weight), name


def test_distributed_checkpoint_with_nan_in_one_slice_is_refused_by_every_process(results):
    said = results["nan-two.dcp-on-four-fsdp"]["refused"]
    assert len(said) == 4 and len(set(said)) == 1
    assert "nan-two.dcp: text_projection holds NaN or infinity" in said[0]
