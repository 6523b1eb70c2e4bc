"""torch.hub.load from another folder, in a process of its own that has only the packages of the model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import CLIP
import hubconf
from data_loader.transforms import clip_transform, feature_transform
from model import create_model

REPOSITORY = Path(__file__).resolve().parents[1]
OF_THE_MODEL = {
    "torch",
    "einops",
    "open_clip_torch",
    "huggingface_hub",
    "safetensors",
    "pillow",
    "numpy",
    "ftfy",
    "tqdm",
}
IMPORTED_AS = {"faiss-cpu": "faiss", "scikit-learn": "sklearn"}


def others_packages() -> list[str]:
    """What requirement.txt has beyond the packages of the model and what these need themselves."""
    lines = (REPOSITORY / "requirement.txt").read_text().splitlines()
    names = [re.match(r"[\w-]+", line)[0] for line in lines if line[:1].isalpha()]
    assert set(names) >= OF_THE_MODEL
    return [IMPORTED_AS.get(name, name) for name in names if name not in OF_THE_MODEL]


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({others_packages()!r}))\n"
    load = "import functools, torch; load = functools.partial(torch.hub.load, HUB, source='local')\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", f"{blocked}HUB = {str(REPOSITORY)!r}\n{load}{code}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.heavy
def test_features_are_those_of_this_process(tmp_path):
    small = {"video_layers": 1, "text_layers": 1, "trained_text_blocks": 1, "num_frames": 8}
    model = create_model("TVTSv2_B_32", sort_head=False, **small).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 60), np.uint8))
    torch.save(frames, tmp_path / "frames.pt")
    (tmp_path / "utils.py").write_text("")  # a name that a folder of ours has, too
    done = run(
        tmp_path,
        "import sys, utils\n"
        "frames = torch.load('frames.pt')\n"
        f"model, transform = load('tvtsv2_b_32', 'mine.pth', **{small}), load('transform')\n"
        "tokenize = load('tokenizer')\n"
        "assert HUB not in sys.path and not model.training\n"
        "with torch.no_grad():\n"
        "    video, _ = model.encode_video(transform(frames)[None])\n"
        "    text = model.encode_text(tokenize('a dog'))\n"
        "torch.save([video, text, load('transform', 'test', 32)(frames)], 'out.pt')\n"
        "with torch.device('meta'):\n"
        "    models = [load(name) for name in ('tvtsv2_b_32', 'tvtsv2_b_16', 'tvtsv2_h_14')]\n"
        "    models.append(load('tvtsv2_b_16', sort_head=True))\n"
        "print([(m.variant.name, m.pred_model is not None) for m in models])\n",
    )
    assert done.returncode == 0, done.stderr
    names = ("TVTSv2_B_32", "TVTSv2_B_16", "TVTSv2_H_14")
    assert done.stdout == f"{[*((name, False) for name in names), ('TVTSv2_B_16', True)]}\n"
    video, text, cropped = torch.load(tmp_path / "out.pt")
    with torch.no_grad():
        torch.testing.assert_close(video, model.encode_video(feature_transform(224)(frames)[None])[0])
        torch.testing.assert_close(text, model.encode_text(CLIP.tokenize("a dog")))
    assert torch.equal(cropped, clip_transform("test", 32)(frames))


@pytest.mark.heavy
def test_mistakes_are_named(tmp_path):
    (tmp_path / "model.py").write_text("mine = True\n")
    done = run(
        tmp_path,
        "def mistake(*args):\n"
        "    try:\n"
        "        load(*args)\n"
        "    except (OSError, ValueError, ImportError) as error:\n"
        "        print(type(error).__name__, error)\n"
        "mistake('transform', 'none')\n"
        "import model\n"
        "mistake('tvtsv2_b_16')\n"
        "del sys.modules['model']\n"
        "with torch.device('meta'):\n"
        "    mistake('tvtsv2_b_16', 'nowhere.pth')\n",
    )
    assert done.returncode == 0, done.stderr
    kind, name, missing = done.stdout.splitlines()
    assert kind == "ValueError unknown kind of transform 'none'; there are features, test, train"
    assert name.startswith(f"ImportError a module called 'model' is loaded already, {tmp_path}/model.py, and")
    assert missing.startswith("FileNotFoundError") and "nowhere.pth" in missing


def test_what_torch_hub_lists():
    listed = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and name[0] != "_"]
    assert listed == ["tokenizer", "transform", "tvtsv2_b_16", "tvtsv2_b_32", "tvtsv2_h_14"]
