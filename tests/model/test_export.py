"""Towers as graphs: run in a process that has nothing of this repository, and compared with the model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import CLIP
from model import create_model
from model.export import main
from tests.extras import extra


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("TVTSv2_Demo").eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "demo.pth"
    torch.save(model.state_dict(), path)
    return path


def run(folder: Path, code: str) -> torch.Tensor:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = f"import importlib.util, torch\nassert not importlib.util.find_spec('data_loader')\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "out.pt")


def inputs(model, tower: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Five clips or texts, and the model's own embeddings of them."""
    if tower == "text":
        ids = CLIP.tokenize(["a dog", "", "a red car " * 30, "one", "two words"])
        with torch.no_grad():
            return ids, model.encode_text(ids)
    size = model.image_size
    clips = torch.randint(256, (5, model.variant.num_frames, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        return clips, model.encode_video(clips)[0]


@pytest.mark.heavy
@pytest.mark.parametrize("tower", ["video", "text"])
def test_torch(model, checkpoint, tower, tmp_path, capsys):
    assert main([str(checkpoint), str(tmp_path / "new/x.pt2"), "--tower", tower, "--format", "torch"]) == 0
    said = capsys.readouterr().out
    assert "embeds [B, 96]" in said and "TVTSv2_Demo" in said
    x, expected = inputs(model, tower)
    torch.save(x, tmp_path / "in.pt")
    found = run(
        tmp_path,
        "graph = torch.export.load('new/x.pt2').module()\ntorch.save(graph(torch.load('in.pt')), 'out.pt')\n",
    )
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("tower", ["video", "text"])
def test_onnx(model, checkpoint, tower, tmp_path, capsys):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        extra(name)
    assert main([str(checkpoint), str(tmp_path / "x.onnx"), "--tower", tower, "--format", "onnx"]) == 0
    x, expected = inputs(model, tower)
    torch.save(x, tmp_path / "in.pt")
    name = {"video": "video", "text": "token_ids"}[tower]
    found = run(
        tmp_path,
        "import onnxruntime\n"
        "session = onnxruntime.InferenceSession('x.onnx', providers=['CPUExecutionProvider'])\n"
        f"(embeds,) = session.run(['embeds'], {{{name!r}: torch.load('in.pt').numpy()}})\n"
        "torch.save(torch.from_numpy(embeds), 'out.pt')\n",
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_mistakes(checkpoint, tmp_path, capsys):
    def said(*given: str) -> str:
        options = ("--tower", "text", "--format", "torch")
        assert main([*given, *options]) == 2
        return capsys.readouterr().err

    there = tmp_path / "there.pt2"
    there.write_text("mine")
    assert "would be replaced" in said(str(checkpoint), str(there))
    assert "is a folder" in said(str(checkpoint), str(tmp_path), "--overwrite")
    assert "none.pth" in said(str(tmp_path / "none.pth"), str(tmp_path / "x"))
    assert "did you mean 'TVTSv2_B_16'?" in said(str(checkpoint), str(tmp_path / "x"), "--arch", "TVTSv2_B16")
    assert there.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["there.pt2"]
