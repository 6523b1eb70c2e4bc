"""The comparison of precisions, in small."""

import json

import pytest
import torch

from benchmarks import precision
from model import create_model
from tests.data_loader.video_files import write_video


def run(tmp_path, *options):
    given = ["--arch", "TVTSv2_Demo", "--device", "cpu", "--frames", "3", *options]
    status = precision.main([*given, "--json", str(tmp_path / "figures.json")])
    assert status == 0
    (rows,) = json.loads((tmp_path / "figures.json").read_text())["tables"].values()
    return {row.pop("name"): {name: float(value) for name, value in row.items()} for row in rows}


def test_random_weights_and_outliers(tmp_path):
    rows = run(tmp_path, "--clips", "4", "--batch-size", "3")
    assert len(rows) == 2 * len(precision.WEIGHTS)
    for name in ("random weights", "outliers in the sum", "outliers behind LayerNorms, made up for", "both"):
        assert 0.998 <= rows[f"{name}, fp8"]["cosine"] < rows[f"{name}, bf16"]["cosine"] + 1e-4
    for figures in rows.values():
        assert figures["less the mean"] <= figures["cosine"]


def test_a_checkpoint_on_videos(tmp_path):
    torch.manual_seed(0)
    weights = create_model("TVTSv2_Demo").state_dict()
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    videos = [str(write_video(tmp_path / name, num_frames=4)) for name in ("a.mp4", "b.mp4")]
    rows = run(tmp_path, "--checkpoint", str(tmp_path / "weights.pth"), "--videos", *videos)
    assert list(rows) == ["weights.pth, bf16", "weights.pth, fp8"]
    assert 0.998 <= rows["weights.pth, fp8"]["cosine"] < rows["weights.pth, bf16"]["cosine"] < 1


def test_one_clip_is_too_few(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(tmp_path, "--clips", "1")
    assert end.value.code == 2
    assert "give two or more" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["short", "damaged"])
def test_a_video_that_cannot_be_taken_is_named(tmp_path, capsys, kind):
    video = tmp_path / "a.mp4"
    if kind == "short":
        write_video(video, num_frames=2)
    else:
        video.write_bytes(b"no video")
    with pytest.raises(SystemExit) as end:
        run(tmp_path, "--videos", str(video))
    assert end.value.code == 2
    assert str(video) in capsys.readouterr().err
