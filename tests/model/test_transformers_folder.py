"""The folder that transformers opens, in a process that has neither this repository nor anything of it."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import CLIP
from data_loader.sampling import linspace_frames, sample_frames
from data_loader.transforms import clip_transform, feature_transform, pad_clip
from model import create_model
from model.convert import main
from utils.config import REPOSITORY

TEXTS = [
    "a dog runs",
    "Hello!!! it's  &amp;amp; “quoted”, don't 12345 naïve ünïcode",
    "😀 emoji 日本語 İstanbul",
    "",
    "word " * 100,
    "<end_of_text> x",
    "a\tb\nc",
]


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Code in a folder, where `open_folder(name)` gives a model and its processor."""
    begin = (
        "import importlib.util, torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "assert not any(map(importlib.util.find_spec, ['data_loader', 'CLIP', 'tvtsv2']))\n"
        "def open_folder(name):\n"
        "    model = AutoModel.from_pretrained(name, trust_remote_code=True)\n"
        "    return model, AutoProcessor.from_pretrained(name, trust_remote_code=True)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", begin + code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("TVTSv2_Demo").eval()


@pytest.fixture(scope="module")
def converted(model, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("hub")
    torch.save(model.state_dict(), place / "demo.pth")
    assert main([str(place / "demo.pth"), str(place / "tvtsv2-demo.1"), "--transformers"]) == 0
    return place / "tvtsv2-demo.1"


@pytest.mark.heavy
def test_outputs_are_ours(model, converted):
    place, T = converted.parent, model.variant.num_frames
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 60, 90), np.uint8))
    torch.save({"frames": frames, "texts": TEXTS}, place / "in.pt")
    done = run(
        place,
        "given = torch.load('in.pt')\n"
        f"model, processor = open_folder({converted.name!r})\n"
        "assert not model.training\n"
        "inputs = processor(text=given['texts'], videos=[given['frames'].permute(0, 2, 3, 1).numpy()])\n"
        "tests = processor(videos=[given['frames'], given['frames'][:3]], transform='test')\n"
        "with torch.no_grad():\n"
        "    found = {\n"
        "        'ids': inputs['input_ids'],\n"
        "        'clip': inputs['pixel_values_videos'],\n"
        "        'videos': model.get_video_features(inputs['pixel_values_videos']),\n"
        "        'texts': model.get_text_features(inputs['input_ids']),\n"
        "        'tests': model.get_video_features(**tests),\n"
        "        'forward': model(**inputs).to_tuple(),\n"
        "        'alone': list(model(**tests)),\n"
        "    }\n"
        "model.save_pretrained('again')\n"
        "processor.save_pretrained('again')\n"
        "model, processor = open_folder('again')\n"
        "with torch.no_grad():\n"
        "    inputs = processor(text=given['texts'], videos=given['frames'])\n"
        "    found['again'] = model(**inputs).to_tuple()\n"
        "torch.save(found, 'out.pt')\n",
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(place / "out.pt")
    clip = feature_transform(model.image_size)(frames[linspace_frames(T, 40)])[None]
    crop = clip_transform("test", model.image_size)
    padded = [pad_clip(crop(part[sample_frames(T, len(part))]), T) for part in (frames, frames[:3])]
    valid = torch.tensor([number for _, number in padded])
    torch.set_num_threads(1)  # as there, so that sums are rounded alike
    with torch.no_grad():
        videos, _ = model.encode_video(clip)
        texts = model.encode_text(CLIP.tokenize(TEXTS))
        tests, _ = model.encode_video(torch.stack([part for part, _ in padded]), valid_frames=valid)
    assert torch.equal(found["ids"], CLIP.tokenize(TEXTS))
    assert torch.equal(found["clip"], clip)
    assert torch.equal(found["videos"], videos)
    torch.testing.assert_close(found["texts"], texts, rtol=0, atol=1e-6)
    torch.testing.assert_close(found["tests"], tests, rtol=0, atol=1e-6)
    per_video, per_text, *embeds = found["forward"]
    cosines = torch.cosine_similarity(videos, texts)[None]
    torch.testing.assert_close(per_video, 20 * cosines, rtol=0, atol=1e-4)
    assert torch.equal(per_text, per_video.T)
    assert torch.equal(embeds[0], found["videos"]) and torch.equal(embeds[1], found["texts"])
    assert found["alone"] == ["video_embeds"]
    for first, second in zip(found["forward"], found["again"], strict=True):
        assert torch.equal(first, second)


def test_what_the_folder_holds(converted, model):
    card = (converted / "README.md").read_text()
    assert card.startswith("---\n") and "library_name: transformers" in card
    for words in ("# TVTSv2_Demo", "## Licence", "## What it is meant for", "sort head", "96 numbers"):
        assert words in card
    assert "MIT License" in (converted / "License.txt").read_text()
    state = load_file(converted / "model.safetensors")
    assert set(state) == {f"tvtsv2.{name}" for name in model.state_dict()}
    for path in converted.glob("*.py"):
        text = path.read_text()
        assert "import triton" not in text and "from .." not in text and "from utils" not in text, path
        compile(text, path, "exec")


def test_the_card_names_all_packages_that_the_folder_needs(converted):
    named = re.search(r"`pip install (.+?)`", (converted / "README.md").read_text())
    packages = {{"pillow": "PIL"}.get(name, name) for name in named[1].split()}
    packages |= {"huggingface_hub", "safetensors"}  # transformers needs them itself
    used = set()
    for path in converted.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.split(".")[0])
    assert used - set(sys.stdlib_module_names) <= packages
    assert named[0] in (REPOSITORY / "docs" / "hubs.md").read_text()


@pytest.mark.heavy
def test_mistakes_are_named(converted):
    place = converted.parent
    done = run(
        place,
        "from transformers import AutoConfig\n"
        "def mistake(call, *args, **options):\n"
        "    try:\n"
        "        call(*args, **options)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        f"model, processor = open_folder({converted.name!r})\n"
        "mistake(processor)\n"
        "mistake(processor, videos=[torch.zeros(4, 3, 8, 8)])\n"
        "mistake(processor, videos=[torch.zeros(4, 8, 8, dtype=torch.uint8)])\n"
        "mistake(processor, videos=torch.zeros(4, 3, 8, 8, dtype=torch.uint8), transform='none')\n"
        "mistake(processor, text='a', return_tensors='np')\n"
        "mistake(type(model), type(model.config)())\n"
        "mistake(model.get_text_features, torch.zeros(1, 78, dtype=torch.int64))\n",
    )
    assert done.returncode == 0, done.stderr
    nothing, floats, shape, transform, arrays, config, ids = done.stdout.splitlines()
    assert nothing == "give text=…, videos=… or both"
    assert floats.endswith("got torch.float32 [4, 3, 8, 8]")
    assert shape.endswith("got torch.uint8 [4, 8, 8]")
    assert transform == "transform is 'none'; expected one of features, test"
    assert arrays == "return_tensors is 'np'; there is only 'pt'"
    assert "the config has no settings" in config and "1 to 77" in ids


@pytest.mark.heavy
def test_weights_that_are_not_the_configs_are_refused(converted):
    """Where transformers would only warn, and go on with random numbers."""
    whole = load_file(converted / "model.safetensors")
    fewer = {name: value for name, value in whole.items() if name != "tvtsv2.text_projection"}
    for name, state in {"fewer": fewer, "more": {**whole, "tvtsv2.new": torch.ones(1)}}.items():
        folder = shutil.copytree(converted, converted.with_name(name))
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    done = run(
        converted.parent,
        "for name in ('fewer', 'more'):\n"
        "    try:\n"
        "        AutoModel.from_pretrained(name, trust_remote_code=True)\n"
        "    except ValueError as error:\n"
        "        print(error)\n",
    )
    assert done.returncode == 0, done.stderr
    missing, left_over = (line for line in done.stdout.splitlines() if "not those of the config" in line)
    assert "{'missing_keys': ['tvtsv2.text_projection']}" in missing
    assert "{'unexpected_keys': ['tvtsv2.new']}" in left_over


def test_what_cannot_be_converted(converted, capsys):
    source, folder = str(converted.parent / "demo.pth"), str(converted)
    assert main([source, folder, "--transformers"]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert main([source, folder, "--transformers", "--overwrite", "--arch", "TVTSv2_B16"]) == 2
    assert "did you mean 'TVTSv2_B_16'?" in capsys.readouterr().err
    assert main([source, folder + "2", "--transformers", "--arch", "TVTSv2_Demo"]) == 0
    assert "AutoModel.from_pretrained" in capsys.readouterr().out
