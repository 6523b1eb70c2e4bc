"""Whole evaluations on data in the real layouts, against plain versions: one video and one text at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_entry
from CLIP import tokenize
from data_loader.sampling import sample_frames, window_shifts
from data_loader.transforms import clip_transform, normalize
from data_loader.video import read_clip, read_frames
from downstream import multiple_choice, recognition, retrieval

from . import layouts


@torch.no_grad()
def embed_video(model, path: Path) -> np.ndarray:
    frames, _, _ = read_clip(path, 12)
    clip = normalize(clip_transform("test", model.image_size)(frames))
    video = torch.zeros(1, 12, 3, model.image_size, model.image_size)
    video[0, : len(clip)] = clip
    return model.encode_video(video)[0][0].numpy()


@torch.no_grad()
def embed_text(model, text: str) -> np.ndarray:
    return model.encode_text(tokenize([text]))[0].numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def place(scores: list[float], right: int) -> int:
    return 1 + sum(score > scores[right] for score in scores)


def run(main, dataset: str, root: Path, meta: Path, checkpoint: Path, output: Path, *more: str) -> dict:
    arguments = ["--dataset", dataset, "--set", f"data.root={root}", "--set", f"meta={meta}"]
    arguments += ["--arch", "TVTSv2_Demo", "--checkpoint", str(checkpoint), "--output", str(output)]
    status = main([*arguments, "--num-workers", "0", "--batch-size", "2", "--device", "cpu", *more])
    assert status == 0
    return json.loads((output / "results.json").read_text())


def recall(places: list[int], k: int) -> float:
    return 100 * sum(p <= k for p in places) / len(places)


def check_retrieval(results: dict, videos: list, captions: list, owner: list[int]) -> None:
    sims = [[cosine(text, video) for video in videos] for text in captions]
    t2v = [place(row, owner[i]) for i, row in enumerate(sims)]
    assert [query["rank"] for query in results["queries"]] == t2v
    metrics = results["metrics"]["text to video"]["plain"]
    for k in (1, 5, 10, 50):
        assert metrics[f"R{k}"] == pytest.approx(recall(t2v, k))
    assert metrics["MedR"] == np.median(t2v)
    assert metrics["MeanR"] == pytest.approx(np.mean(t2v))
    exps = np.exp(np.array(sims) / 0.01)
    for kind, scores in (("plain", sims), ("dsl", np.array(sims) * exps / exps.sum(axis=1, keepdims=True))):
        v2t = []
        for v in range(len(videos)):
            column = [row[v] for row in scores]
            v2t.append(min(place(column, i) for i in range(len(captions)) if owner[i] == v))
        metrics = results["metrics"]["video to text"][kind]
        assert metrics["R1"] == pytest.approx(recall(v2t, 1))
        assert metrics["R5"] == pytest.approx(recall(v2t, 5))
        assert metrics["MedR"] == np.median(v2t)
        assert metrics["MeanR"] == pytest.approx(np.mean(v2t))
    weighted = np.array(sims) * exps / exps.sum(axis=0)
    dsl = [place(list(row), owner[i]) for i, row in enumerate(weighted)]
    assert [query["dsl_rank"] for query in results["queries"]] == dsl
    assert results["metrics"]["text to video"]["dsl"]["R1"] == pytest.approx(recall(dsl, 1))


def test_msrvtt(model, checkpoint, tmp_path, capsys):
    queries = layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    results = run(
        retrieval.main, "msrvtt", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out", "--dsl"
    )
    videos = [embed_video(model, tmp_path / f"data/videos/all/video{i}.mp4") for i in range(5)]
    check_retrieval(results, videos, [embed_text(model, query) for query in queries], [0, 1, 2, 3, 4])
    table = capsys.readouterr().out
    assert "5 videos, 5 captions" in table and "text to video †" in table
    assert results["failed_files"] == []
    assert len(results["checkpoint"]["sha256"]) == 64


def test_didemo_with_two_captions_of_a_video(model, checkpoint, tmp_path):
    layouts.didemo(tmp_path / "data", tmp_path / "meta")
    results = run(
        test_entry.main, "didemo", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out"
    )
    videos = [embed_video(model, tmp_path / f"data/clips/v{i}.mp4") for i in range(4)]
    captions = [query["caption"] for query in results["queries"]]
    owner = [layouts.QUERIES.index(caption) if caption != layouts.QUERIES[4] else 1 for caption in captions]
    assert sorted(owner) == [0, 1, 1, 2, 3]
    check_retrieval(results, videos, [embed_text(model, caption) for caption in captions], owner)


def test_lsmdc(model, checkpoint, tmp_path):
    layouts.lsmdc(tmp_path / "data", tmp_path / "meta")
    results = run(
        test_entry.main, "lsmdc", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out"
    )
    videos = [embed_video(model, path) for path in sorted((tmp_path / "data").rglob("*.avi"))]
    check_retrieval(results, videos, [embed_text(model, q) for q in layouts.QUERIES[:3]], [0, 1, 2])


def test_sliding_windows_are_averaged_by_video(model, checkpoint, tmp_path):
    layouts.lsmdc(tmp_path / "data", tmp_path / "meta")
    paths = sorted((tmp_path / "data").rglob("*.avi"))
    layouts.write_video(paths[0], seed=20, frames=40)  # more windows than the others
    layouts.write_video(paths[1], seed=21, frames=5)  # shorter than a clip
    results = run(
        test_entry.main,
        "lsmdc",
        tmp_path / "data",
        tmp_path / "meta",
        checkpoint,
        tmp_path / "out",
        "-s",
        "1",
    )
    videos = []
    for path in paths:
        vlen = read_clip(path, 1)[2]
        embeds = []
        for shift in window_shifts(12, vlen, 1):
            frames, _, _ = read_frames(
                path, lambda video, shift=shift: sample_frames(12, len(video), shift=shift)
            )
            video = torch.zeros(1, 12, 3, model.image_size, model.image_size)
            video[0, : len(frames)] = normalize(clip_transform("test", model.image_size)(frames))
            with torch.no_grad():
                embeds.append(model.encode_video(video)[0][0].numpy())
        videos.append(np.mean(embeds, axis=0))
    assert len(window_shifts(12, 40, 1)) == 3
    check_retrieval(results, videos, [embed_text(model, q) for q in layouts.QUERIES[:3]], [0, 1, 2])


@pytest.mark.parametrize("name", ["hmdb51", "ucf101", "k400"])
def test_recognition(name, model, checkpoint, tmp_path):
    labels = layouts.recognition(name, tmp_path / "data", tmp_path / "meta")
    main = recognition.main if name == "hmdb51" else test_entry.main
    results = run(main, name, tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out")
    classes = [embed_text(model, f"a person {text}") for text in layouts.CLASSES]
    files = {path.name: path for path in (tmp_path / "data").rglob("clip*")}
    for i, (label, query) in enumerate(zip(labels, results["queries"], strict=True)):
        video = embed_video(model, next(path for name, path in files.items() if name.startswith(f"clip{i}.")))
        scores = [cosine(video, text) for text in classes]
        assert query["rank"] == place(scores, label)
        assert query["predicted"] == layouts.CLASSES[int(np.argmax(scores))]
    ranks = [query["rank"] for query in results["queries"]]
    assert results["metrics"]["accuracy"]["plain"] == {"top1": pytest.approx(recall(ranks, 1)), "top5": 100.0}


def test_several_prompts_are_averaged_after_normalising(model, checkpoint, tmp_path):
    labels = layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    prompts = ["a person {}", "{}", "a video of someone who {}, seen from far away"]
    results = run(
        recognition.main, "hmdb51", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out",
        "--set", f"prompts={json.dumps(prompts)}",
    )  # fmt: skip
    classes = []
    for text in layouts.CLASSES:
        embeds = [embed_text(model, prompt.replace("{}", text)) for prompt in prompts]
        classes.append(np.mean([embed / np.linalg.norm(embed) for embed in embeds], axis=0))
    for i, query in enumerate(results["queries"]):
        video = embed_video(model, tmp_path / f"data/{layouts.CLASSES[labels[i]]}/clip{i}.avi")
        assert query["rank"] == place([cosine(video, text) for text in classes], labels[i])


def test_multiple_choice(model, checkpoint, tmp_path):
    questions = layouts.ssv2(tmp_path / "data", tmp_path / "meta")
    results = run(
        multiple_choice.main, "ssv2_mc", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out"
    )
    ranks = []
    for question, query in zip(questions, results["queries"], strict=True):
        video = embed_video(model, tmp_path / "data/videos" / question["clip_name"])
        scores = [cosine(video, embed_text(model, option)) for option in question["options"]]
        ranks.append(place(scores, question["answer"]))
        assert query["rank"] == ranks[-1]
        assert query["chosen"] == question["options"][int(np.argmax(scores))]
    assert results["metrics"]["accuracy"]["plain"]["top1"] == pytest.approx(recall(ranks, 1))
