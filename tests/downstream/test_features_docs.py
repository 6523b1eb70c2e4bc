"""The recipes of docs/features.md, run as they stand there, and its commands with a small model."""

import re
import shlex

import pytest

from downstream import feature_extraction
from downstream.feature_files import load_features
from tests.extras import extra
from utils.config import REPOSITORY

from .layouts import write_video
from .test_feature_extraction import command

TEXT = (REPOSITORY / "docs/features.md").read_text()
START = TEXT.partition("## Many machines")[0]  # the rest: embedding/test_shards.py
COMMANDS = re.findall(r"^python downstream/feature_extraction\.py (.*)$", START, re.MULTILINE)
RECIPES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def films(tmp_path, monkeypatch):
    for i in range(2):
        write_video(tmp_path / "films" / f"{i}.mp4", seed=i, frames=40)
    (tmp_path / "spans.csv").write_text(
        "path,start,end,label\nfilms/0.mp4,0.5,00:00:02,run\nfilms/1.mp4,,,sit\n"
    )
    monkeypatch.chdir(tmp_path)


def test_commands_and_recipes(films, checkpoint, capsys):
    for package in ("scenedetect", "h5py", "lancedb"):
        extra(package)
    assert len(COMMANDS) == 4 and len(RECIPES) == 2
    for line in COMMANDS:
        words = shlex.split(line.replace("--arch TVTSv2_B_32 ", ""))
        assert feature_extraction.main(command(checkpoint, *words)) == 0
    assert len(load_features("films.h5")) == len(load_features("shots.parquet")) == 2
    assert load_features("features").metadata["fps"] == 4
    assert load_features("spans.safetensors").columns["label"] == ["run", "sit"]
    capsys.readouterr()
    for recipe in RECIPES:
        exec(compile(recipe, "docs/features.md", "exec"), {})
    said = capsys.readouterr().out
    assert "(2, 96)" in said and "_distance" in said
