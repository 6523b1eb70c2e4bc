"""Weights that make no sense: NaN, numbers too large to compute with, and ones that tell nothing apart."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data_loader.demo import generate
from downstream import (
    feature_extraction,
    linear_probe,
    multiple_choice,
    recognition,
    retrieval,
    search,
    sorting,
)
from model import create_model

from . import layouts
from .test_commands import arguments

Edit = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture
def weights(checkpoint, tmp_path) -> Callable[[Edit], Path]:
    """A copy of the random model's file with some of its tensors changed."""

    def changed(edit: Edit) -> Path:
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        edit(state)
        torch.save({"state_dict": state}, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    return changed


PROTOCOLS = {
    "retrieval": (retrieval.main, "lsmdc", layouts.lsmdc),
    "recognition": (recognition.main, "hmdb51", lambda root, meta: layouts.recognition("hmdb51", root, meta)),
    "multiple_choice": (multiple_choice.main, "ssv2_mc", layouts.ssv2),
    "linear_probe": (linear_probe.main, "hmdb51", layouts.probe_lists),
}


def evaluate(protocol: str, checkpoint: Path, tmp_path: Path) -> int:
    main, dataset, lay_out = PROTOCOLS[protocol]
    lay_out(tmp_path / "data", tmp_path / "meta")
    return main(arguments(tmp_path, checkpoint, dataset=dataset))


def refused(status: int, capsys: pytest.CaptureFixture, command: Callable[[], int]) -> str:
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_weight_that_is_no_number_is_named_when_it_is_loaded(weights, tmp_path, capsys, value):
    path = weights(lambda state: state["video_model.proj"][0, 3:5].fill_(value))
    said = refused(2, capsys, lambda: evaluate("recognition", path, tmp_path))
    assert f"{path}: video_model.proj holds NaN or infinity (2 of 6144 numbers)" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_embeddings_that_overflow_name_the_first_video_and_score_nothing(protocol, weights, tmp_path, capsys):
    path = weights(lambda state: state["video_model.proj"].fill_(3e38))
    said = refused(1, capsys, lambda: evaluate(protocol, path, tmp_path))
    first = {
        "retrieval": "1001_Some_Film_00.00.00.000-00.00.01.000.avi",
        "recognition": "jumps/clip0.avi",
        "multiple_choice": "videos/0.webm.mp4",
        "linear_probe": "jumps/train_source0_0.avi",
    }[protocol]
    assert "the embedding of /" in said and f"{first} (and " in said and "holds NaN or infinity" in said
    assert not (tmp_path / "out/results.json").exists()


def test_a_text_that_overflows_is_named(weights, tmp_path, capsys):
    path = weights(lambda state: state["text_projection"].fill_(3e38))
    said = refused(1, capsys, lambda: evaluate("recognition", path, tmp_path))
    assert "the embedding of 'a person jumps' (and 2 of the other 2) holds NaN" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_embeddings_of_videos_that_are_all_the_same_are_an_error(protocol, weights, tmp_path, capsys):
    path = weights(lambda state: state["video_model.proj"].zero_())
    said = refused(1, capsys, lambda: evaluate(protocol, path, tmp_path))
    videos = {"retrieval": 3, "recognition": 6, "multiple_choice": 4, "linear_probe": 12}[protocol]
    assert f"error: the embeddings of all {videos} videos are the same up to rounding" in said
    assert "name other weights with --checkpoint" in said
    assert not (tmp_path / "out/results.json").exists()


def test_embeddings_of_texts_that_are_all_the_same_are_an_error(weights, tmp_path, capsys):
    path = weights(lambda state: state["text_projection"].zero_())
    said = refused(1, capsys, lambda: evaluate("recognition", path, tmp_path))
    assert "error: the embeddings of all 3 texts are the same up to rounding" in said
    assert not (tmp_path / "out/results.json").exists()


def test_embeddings_of_different_videos_are_not_warned_of(checkpoint, tmp_path, capsys):
    assert evaluate("retrieval", checkpoint, tmp_path) == 0
    assert "the same" not in capsys.readouterr().err


def test_features_that_overflow_stop_the_extraction_and_name_the_video(weights, tmp_path, capsys):
    video = layouts.write_video(tmp_path / "a.mp4", seed=0)
    output = tmp_path / "features.safetensors"
    path = weights(lambda state: state["video_model.proj"].fill_(3e38))
    given = [str(video), "--arch", "TVTSv2_Demo", "--checkpoint", str(path), "-o", str(output), "-d", "cpu"]
    said = refused(1, capsys, lambda: feature_extraction.main([*given, "--num-workers", "0"]))
    assert f"the embedding of {video} holds NaN or infinity" in said
    assert not output.exists()


def test_features_that_are_all_the_same_are_warned_of_by_extraction_and_search(weights, tmp_path, capsys):
    for i in range(2):
        layouts.write_video(tmp_path / f"videos/{i}.mp4", seed=i)
    output = tmp_path / "features.safetensors"
    path = weights(lambda state: state["video_model.proj"].zero_())
    given = [str(tmp_path / "videos"), "--arch", "TVTSv2_Demo", "--checkpoint", str(path), "-d", "cpu"]
    assert feature_extraction.main([*given, "-o", str(output), "--num-workers", "0"]) == 0
    assert "warning: the embeddings of all 2 videos are the same" in capsys.readouterr().err
    assert search.main(["a dog", "-f", str(output), "--checkpoint", str(path), "-d", "cpu"]) == 0
    assert f"warning: the embeddings of all 2 vectors in {output} are the same" in capsys.readouterr().err


def sort(checkpoint: Path, tmp_path: Path) -> int:
    generate(tmp_path / "world", seed=3, scale=0.025)
    entries = json.dumps([{"type": "yttemporal", "root": str(tmp_path / "world/YTTemporal")}])
    settings = [f"data.val={entries}", f"data.meta={tmp_path / 'world/meta_data'}", "data.num_workers=0"]
    given = ["--config", "configs/demo.json", "--checkpoint", str(checkpoint), "-d", "cpu"]
    given += ["--output", str(tmp_path / "x.json"), *(part for s in settings for part in ("--set", s))]
    return sorting.main(given)


def test_sorting_names_the_first_transcript_without_a_number(weights, tmp_path, capsys):
    path = weights(lambda state: state["pred_model.head.weight"].fill_(3e38))
    said = refused(1, capsys, lambda: sort(path, tmp_path))
    assert "error: the order of " in said and "holds NaN or infinity" in said
    assert not (tmp_path / "x.json").exists()


def test_a_sort_head_that_always_answers_the_same_is_warned_of(weights, tmp_path, capsys):
    path = weights(lambda state: state["pred_model.head.weight"].zero_())
    assert sort(path, tmp_path) == 0
    assert "warning: the sort head answers the same whatever it is shown" in capsys.readouterr().err


def test_from_pretrained_refuses_them_too(tmp_path):
    model = create_model("TVTSv2_Demo")
    with torch.no_grad():
        model.text_projection[0, 0] = math.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="text_projection holds NaN or infinity"):
        type(model).from_pretrained(tmp_path)
