"""Segments × crops: each task against a plain version that sees one view at a time."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import test as test_entry
from data_loader.transforms import normalize
from data_loader.video import read_frames
from downstream import linear_probe, multiple_choice, probe, recognition, retrieval
from downstream.feature_files import load_features
from downstream.probes.attentive import attentive_head

from .. import layouts, test_own_videos
from ..launch import torchrun
from ..probes import test_probes
from ..test_commands import arguments, failing, results
from ..test_processes import same_results
from ..test_protocols import check_retrieval, cosine, embed_text, place, run

VIEWS = ("--segments", "2", "--crops", "3")


@torch.no_grad()
def view_embeds(model, path: Path, segments: int, crops: int) -> np.ndarray:
    """[segments · crops, D]: each view alone through the model."""
    views = view_clips(model, path, segments, crops)
    return np.stack([model.encode_video(video)[0][0].numpy() for video in views])


def view_clips(model, path: Path, segments: int, crops: int) -> list[torch.Tensor]:
    """Clips [1, 12, 3, S, S]: each part's frames, each resized by PIL and cropped, normalised."""
    _, _, vlen = read_frames(path, lambda video: [0])
    size, short = model.image_size, int(1.2 * model.image_size)
    clips = []
    for k in range(segments):
        start = k * vlen // segments
        stop = max((k + 1) * vlen // segments, start + 1)
        count = min(12, stop - start)
        bounds = [int(i * (stop - start) / count) for i in range(count + 1)]
        wanted = [start + (a + b - 1) // 2 for a, b in pairwise(bounds)]
        frames, _, _ = read_frames(path, lambda video, wanted=wanted: wanted)
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        scale = short / min(images[0].size)
        small = [image.resize([int(side * scale) for side in image.size], 0) for image in images]
        spare = max(small[0].size) - size
        for at in (0, round(spare / 2), spare) if crops == 3 else (round(spare / 2),):
            middle = round((short - size) / 2)
            left, top = (at, middle) if small[0].width >= small[0].height else (middle, at)
            clip = np.stack([np.asarray(i.crop((left, top, left + size, top + size))) for i in small])
            video = torch.zeros(1, 12, 3, size, size)
            video[0, :count] = normalize(torch.from_numpy(clip).permute(0, 3, 1, 2))
            clips.append(video)
    return clips


def test_retrieval_averages_the_embeddings(model, checkpoint, tmp_path):
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    first = sorted((tmp_path / "data").rglob("*.mp4"))[0]
    layouts.write_video(first, seed=50, frames=1, size=(64, 48))  # a portrait, shorter than its segments
    found = run(
        retrieval.main, "msrvtt", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out", *VIEWS
    )
    paths = sorted((tmp_path / "data").rglob("*.mp4"))
    videos = [view_embeds(model, path, 2, 3).mean(axis=0) for path in paths]
    table = load_features(tmp_path / "out/video_embeddings.safetensors")
    assert [Path(path).name for path in table.columns["path"]] == [path.name for path in paths]
    np.testing.assert_allclose(table.features, videos, atol=2e-5)
    captions = [query["caption"] for query in found["queries"]]
    owner = [[path.stem for path in paths].index(Path(query["video"]).stem) for query in found["queries"]]
    check_retrieval(found, videos, [embed_text(model, caption) for caption in captions], owner)
    assert (found["config"]["segments"], found["config"]["crops"]) == (2, 3)


def test_recognition_averages_the_probabilities(model, checkpoint, tmp_path):
    labels = layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    found = run(
        recognition.main, "hmdb51", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out", *VIEWS
    )
    classes = [embed_text(model, f"a person {text}") for text in layouts.CLASSES]
    for i, query in enumerate(found["queries"]):
        path = tmp_path / f"data/{layouts.CLASSES[labels[i]]}/clip{i}.avi"
        shares = []
        for view in view_embeds(model, path, 2, 3):
            exps = np.exp([100 * cosine(view, text) for text in classes])
            shares.append(exps / exps.sum())
        scores = np.mean(shares, axis=0).tolist()
        assert query["rank"] == place(scores, labels[i])
        assert query["predicted"] == layouts.CLASSES[int(np.argmax(scores))]


def test_several_labels_average_the_logits(model, checkpoint, tmp_path):
    own = ["sits", "runs", "eats", "runs", "sits"]
    paths = [layouts.write_video(tmp_path / f"videos/{i}.mp4", seed=i) for i in range(len(own))]
    given = test_own_videos.put_lists(
        tmp_path, [f"{i}.mp4,{name}" for i, name in enumerate(own)], "path,label"
    )
    given += ["--dataset", "labels", "--set", "data.multi_label=true", *VIEWS]
    found = test_own_videos.run(test_entry.main, checkpoint, tmp_path, *given)
    views = [view_embeds(model, path, 2, 3) for path in paths]
    for row in found["details"]["per_class"]:
        text = embed_text(model, f"a video of {row['name']}")
        scores = [np.mean([cosine(view, text) for view in of_video]) for of_video in views]
        wanted = [name == row["name"] for name in own]
        assert row["AP"] == pytest.approx(test_own_videos.average_precision(scores, wanted))


def test_multiple_choice_averages_the_embeddings(model, checkpoint, tmp_path):
    questions = layouts.ssv2(tmp_path / "data", tmp_path / "meta")
    found = run(
        multiple_choice.main, "ssv2_mc", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out",
        "--segments", "3",
    )  # fmt: skip
    for question, query in zip(questions, found["queries"], strict=True):
        video = view_embeds(model, tmp_path / "data/videos" / question["clip_name"], 3, 1).mean(axis=0)
        scores = [cosine(video, embed_text(model, option)) for option in question["options"]]
        assert query["rank"] == place(scores, question["answer"])


def test_a_probe_sees_test_videos_in_views_and_training_videos_once(model, checkpoint, tmp_path):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    given = arguments(tmp_path, checkpoint, *VIEWS, dataset="hmdb51")
    assert linear_probe.main(given) == 0
    for split, views in (("train", (1, 1)), ("test", (2, 3))):
        table = load_features(tmp_path / "out" / split / "video_embeddings.safetensors")
        for path, embed in zip(table.columns["path"], table.features, strict=True):
            expected = view_embeds(model, Path(path), *views).mean(axis=0)
            np.testing.assert_allclose(embed, expected, atol=2e-5)


@pytest.mark.parametrize("several", [False, True])
def test_the_attentive_probe_averages_the_probabilities_of_test_videos(several, model, checkpoint, tmp_path):
    settings = ["--set", "probe.epochs=2", "--set", "probe.learning_rates=[0.001]"]
    options = ["--probe", "attentive", *settings, *VIEWS]
    if several:
        named = test_probes.several_labels(tmp_path, "-r", str(checkpoint), "--arch", "TVTSv2_Demo")
        given = [*named, "--output", str(tmp_path / "out"), *options]
    else:
        layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
        given = arguments(tmp_path, checkpoint, *options, dataset="hmdb51")
    assert probe.main(given) == 0
    found = results(tmp_path)
    head = attentive_head(model.variant.embed_dim, 3 if several else 2).eval()
    head.load_state_dict(load_file(tmp_path / "out/probe.safetensors"))
    about = json.loads((tmp_path / "out/test/tokens/tokens.json").read_text())
    logits = []
    for path, *_ in about["rows"]:
        tokens = torch.cat([model.encode_video(clip)[1] for clip in view_clips(model, Path(path), 2, 3)])
        assert list(tokens.shape) == about["shape"]
        of_views = head(tokens).detach()
        logits.append(of_views.mean(0) if several else of_views.softmax(dim=1).mean(0))
    if several:
        scores = [[float(row[k]) for row in logits] for k in range(3)]
        for k, row in enumerate(found["details"]["per_class"]):
            wanted = [row["name"] in query["classes"] for query in found["queries"]]
            labelled = [bool(query["classes"]) for query in found["queries"]]
            kept = [(score, w) for score, w, there in zip(scores[k], wanted, labelled, strict=True) if there]
            assert row["AP"] == pytest.approx(test_own_videos.average_precision(*zip(*kept, strict=True)))
        return
    for query, shares in zip(found["queries"], logits, strict=True):
        assert query["predicted"] == layouts.CLASSES[int(shares.argmax())]


def test_one_view_is_the_official_protocol_to_the_bit(checkpoint, tmp_path):
    layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    assert recognition.main(arguments(tmp_path, checkpoint, dataset="hmdb51")) == 0
    official = (tmp_path / "out/video_embeddings.safetensors").read_bytes()
    first = results(tmp_path)
    given = arguments(tmp_path, checkpoint, "--segments", "1", "--crops", "1", dataset="hmdb51")
    assert recognition.main(given) == 0
    assert (tmp_path / "out/video_embeddings.safetensors").read_bytes() == official
    assert results(tmp_path)["queries"] == first["queries"]
    assert recognition.main(arguments(tmp_path, checkpoint, *VIEWS, dataset="hmdb51")) == 0  # embedded anew
    views = load_features(tmp_path / "out/video_embeddings.safetensors")
    assert views.columns["clips"].shape == (6, 6, views.features.shape[1])


@pytest.mark.heavy
def test_views_of_two_processes_and_workers_are_those_of_one(checkpoint, tmp_path):
    layouts.recognition("ucf101", tmp_path / "data", tmp_path / "meta")
    next((tmp_path / "data").rglob("clip3.avi")).write_bytes(b"")
    given = arguments(tmp_path, checkpoint, *VIEWS, "--allow-missing", dataset="ucf101")
    of_two = [str(tmp_path / "two") if word == str(tmp_path / "out") else word for word in given]
    with torchrun("test.py", [*of_two, "--num-workers", "1", "--batch-size", "7"], cwd=tmp_path) as ended:
        assert test_entry.main(given) == 0
        ended()
    same_results(tmp_path / "out", tmp_path / "two")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--segments", "0"], "segments is 0; it must be a whole number from 1 on"),
        (["--crops", "2"], "crops is 2; it must be 1 or 3"),
        (["--segments", "2", "-s", "1"], "take one of them"),
    ],
)
def test_views_that_make_no_sense(more, expected, checkpoint, tmp_path, capsys):
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    assert expected in failing(retrieval.main, arguments(tmp_path, checkpoint, *more), capsys)
