"""Two processes find what one finds."""

import json
from pathlib import Path

import numpy as np
import pytest

import test as test_entry
from downstream import feature_extraction, linear_probe
from downstream.feature_files import load_features

from . import layouts
from .launch import torchrun
from .test_commands import arguments


def same_results(one: Path, two: Path) -> None:
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (one, two))
    for key in ("metrics", "intervals", "ties", "counts", "failed_files"):
        assert first[key] == second[key]
    rounded = {"similarity": 0, "top": 0}  # numbers, which other batches may change in the last digit
    for query, other in zip(first["queries"], second["queries"], strict=True):
        assert query | rounded == other | rounded


@pytest.mark.heavy
def test_two_processes_from_another_folder_give_what_one_gives(tmp_path, checkpoint, monkeypatch):
    """All data sets of the demo's model, in the places where their configs look for them."""
    data = tmp_path / "data/demo"
    layouts.msrvtt(data / "msrvtt", data / "meta_data")
    layouts.recognition("hmdb51", data / "hmdb51", data / "meta_data")
    layouts.ssv2(data / "SSV2", data / "meta_data")
    # An odd number of videos, and one unreadable: the shares of the two processes differ.
    (data / "msrvtt/videos/all/video4.mp4").write_bytes(b"")
    given = ["--all", "--arch", "TVTSv2_Demo", "-r", str(checkpoint), "-d", "cpu", "--num-workers", "0"]
    given += ["--allow-missing", "--batch-size", "2", "--output"]
    monkeypatch.chdir(tmp_path)
    with torchrun("test.py", [*given, "two"], cwd=tmp_path) as ended:
        assert test_entry.main([*given, "one"]) == 0
        done = ended()
    assert done.stdout.count("Table 2") == 1 and "demo_msrvtt*" in done.stdout
    found = sorted(path.parent for path in (tmp_path / "one").rglob("results.json"))
    assert [folder.parent.name for folder in found] == ["demo_ssv2", "demo_hmdb51", "demo_msrvtt"]
    for folder in found:
        same_results(folder, tmp_path / "two" / folder.relative_to(tmp_path / "one"))


@pytest.mark.heavy
def test_a_probe_of_two_processes_finds_what_one_finds(tmp_path, checkpoint):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta", clips=5)
    given = arguments(tmp_path, checkpoint, "--batch-size", "2", "-s", "1", dataset="hmdb51")
    of_two = [str(tmp_path / "two") if word == str(tmp_path / "out") else word for word in given]
    with torchrun("downstream/linear_probe.py", of_two, cwd=tmp_path) as ended:
        assert linear_probe.main(given) == 0
        done = ended()
    assert done.stdout.count("held-out") == 1
    same_results(tmp_path / "out", tmp_path / "two")


@pytest.mark.heavy
def test_features_of_two_processes_are_those_of_one(checkpoint, tmp_path):
    for i in range(7):
        layouts.write_video(tmp_path / "videos" / f"{i}.mp4", seed=i)
    (tmp_path / "videos/3.mp4").write_bytes(b"")
    given = [str(tmp_path / "videos"), "--arch", "TVTSv2_Demo", "--checkpoint", str(checkpoint)]
    given += ["--num-workers", "0", "--device", "cpu", "-o"]
    command = [*given, str(tmp_path / "two.npz")]
    with torchrun("downstream/feature_extraction.py", command, cwd=tmp_path, status=1) as ended:
        assert feature_extraction.main([*given, str(tmp_path / "one.npz")]) == 1
        done = ended()
    assert "1 video cannot be read" in done.stderr
    one, two = load_features(tmp_path / "one.npz"), load_features(tmp_path / "two.npz")
    assert one.columns["path"] == two.columns["path"]
    np.testing.assert_allclose(one.features, two.features, atol=1e-6)
