"""k-NN, few-shot and attentive probes against plain versions, and what they keep."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import layer_norm
from torch.nn.functional import normalize as unit

from data_loader.transforms import clip_transform, normalize
from data_loader.video import read_clip
from downstream import linear_probe, probe
from downstream.embedding import token_cache
from downstream.feature_files import load_features
from downstream.probes.attentive import attentive_head
from downstream.probes.few_shot import classify, draw
from downstream.probes.knn import votes
from utils.config import REPOSITORY

from .. import layouts
from ..launch import probe_arguments, torchrun
from ..test_commands import count_videos  # noqa: F401, a fixture
from ..test_processes import same_results


def results(tmp_path, place: str = "out") -> dict:
    return json.loads((tmp_path / place / "results.json").read_text())


def embeddings(tmp_path, split: str) -> tuple[np.ndarray, list[int]]:
    table = load_features(tmp_path / "out" / split / "video_embeddings.safetensors")
    labels = [layouts.CLASSES.index(path.split("/")[-2]) for path in table.columns["path"]]
    return table.features.astype(np.float64), labels


def plain_knn(train, labels, one, k: int, temperature: float) -> list[float]:
    """The votes of the k training vectors nearest to `one`, by class."""
    cosines = [float(x @ one / np.linalg.norm(x) / np.linalg.norm(one)) for x in train]
    found = [0.0] * (max(labels) + 1)
    for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]:
        found[labels[i]] += np.exp(cosines[i] / temperature)
    return found


def test_votes_are_those_of_the_plain_version():
    rng = np.random.default_rng(0)
    train, labels, test = rng.normal(size=(30, 4)), [i % 3 for i in range(30)], rng.normal(size=(7, 4))
    found = votes(torch.tensor(train), torch.tensor(labels), torch.tensor(test), 3, [5, 30, 1], 0.07)
    for k, shares in found.items():
        expected = np.array([plain_knn(train, labels, one, k, 0.07) for one in test])
        np.testing.assert_allclose(shares, expected / expected.sum(axis=1, keepdims=True), atol=1e-12)


def test_neighbours_use_the_embeddings_of_the_linear_probe(checkpoint, tmp_path, count_videos):  # noqa: F811
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    assert linear_probe.main(probe_arguments(tmp_path, checkpoint)) == 0
    embedded, linear = sum(count_videos), results(tmp_path)
    more = ["--probe", "knn", "--set", "probe.neighbours=[3,1,50]", "--report", str(tmp_path / "pages")]
    assert probe.main(probe_arguments(tmp_path, checkpoint, *more)) == 0
    assert sum(count_videos) == embedded == 18
    assert results(tmp_path) == linear
    found = results(tmp_path, "out/knn")
    assert (found["task"], found["details"]["k"], found["published"]) == ("knn", [3, 1, 12], {})
    assert found["command"].startswith("python downstream/probe.py ")
    (train, labels), (test, true) = embeddings(tmp_path, "train"), embeddings(tmp_path, "test")
    for k, name in ((3, "accuracy, k = 3"), (1, "accuracy, k = 1"), (12, "accuracy, k = 12")):
        guesses = [int(np.argmax(plain_knn(train, labels, one, k, 0.07))) for one in test]
        top1 = 100 * np.mean([guess == label for guess, label in zip(guesses, true, strict=True)])
        assert found["metrics"][name]["plain"]["top1"] == pytest.approx(top1)
        if k == 3:
            assert [query["predicted"] for query in found["queries"]] == [layouts.CLASSES[i] for i in guesses]
    assert (tmp_path / "pages/knn_hmdb51.html").exists()


def test_draws_have_as_many_of_each_class_and_differ():
    labels = [i % 3 for i in range(30)]
    classes = [[label] for label in labels]
    draws = [draw(classes, 4, seed) for seed in range(3)]
    for chosen in draws:
        assert len(set(chosen)) == 12 and sorted(labels[i] for i in chosen) == [0] * 4 + [1] * 4 + [2] * 4
    assert draws[0] != draws[1] != draws[2] and draw(classes, 4, 0) == draws[0]


def test_draws_of_several_labels_take_no_video_that_no_class_needs():
    needed = draw([[0, 1]] * 10 + [[1, 2]] * 5 + [[]] * 5, 3, seed=0)
    assert len(needed) == 6 and sum(place < 10 for place in needed) == 3 and max(needed) < 15
    rng = np.random.default_rng(0)
    of_class = rng.random((60, 5)) < (0.6, 0.4, 0.2, 0.2, 0)
    for seed in range(3):
        chosen = draw([np.flatnonzero(row).tolist() for row in of_class], 4, seed)
        assert (of_class[chosen].sum(axis=0)[:4] >= 4).all() and of_class[chosen].any(axis=1).all()
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist()
        last = max(chosen, key=order.index)
        before = [place for place in chosen if place != last]
        assert (of_class[before].sum(axis=0)[:4] < 4).any()


def test_few_shot_is_the_logistic_regression_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    x, test = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (24, 10))
    labels = torch.arange(24) % 3
    unit = [(rows / rows.norm(dim=1, keepdim=True)).numpy() for rows in (x, test)]
    expected = (
        LogisticRegression(C=1.0, tol=1e-9, max_iter=1000).fit(unit[0], labels).predict_log_proba(unit[1])
    )
    logits = classify(x, labels, test, 3).log_softmax(dim=1)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_few_shot_says_mean_and_deviation(checkpoint, tmp_path, capsys):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    assert (
        probe.main(probe_arguments(tmp_path, checkpoint, "--probe", "few-shot", "--set", "probe.draws=3"))
        == 0
    )
    found = results(tmp_path, "out/few_shot")
    assert list(found["metrics"]) == ["4 videos a class", "2 videos a class", "1 video a class"]
    (train, labels), (test, true) = embeddings(tmp_path, "train"), embeddings(tmp_path, "test")
    for shots, told in found["details"]["draws"].items():
        top1 = []
        for seed in range(3):
            chosen = draw([[label] for label in labels], int(shots), seed)
            x, y = torch.from_numpy(train[chosen]).float(), torch.tensor([labels[i] for i in chosen])
            guesses = classify(x, y, torch.from_numpy(test).float(), 2).argmax(dim=1).tolist()
            top1.append(100 * np.mean([guess == label for guess, label in zip(guesses, true, strict=True)]))
        assert told["top1"] == pytest.approx(top1)
        assert told["deviation"] == pytest.approx(np.std(top1, ddof=1))
        name = f"{shots} video{'s' if shots != '1' else ''} a class"
        assert found["metrics"][name]["plain"]["top1"] == pytest.approx(np.mean(top1))
    said = capsys.readouterr().out
    assert "without [16, 8]: 'jumps' has 6 training videos" in said and "over 3 draws" in said
    with pytest.raises(SystemExit):
        probe.main(probe_arguments(tmp_path, checkpoint, "--probe", "few-shot", "--set", "probe.shots=[7]"))
    assert "'jumps' has 6 training videos, fewer than any of the numbers" in capsys.readouterr().err


def plain_head(head: torch.nn.Sequential, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [classes] of tokens [L, D] by hand."""
    norm, pool, last, classifier = head
    x = norm(tokens)
    query = pool.q(pool.latent[0, 0])
    keys, values = pool.kv(x).chunk(2, dim=-1)
    size = x.shape[1] // pool.num_heads
    parts = []
    for h in range(pool.num_heads):
        part = slice(h * size, (h + 1) * size)
        weights = (keys[:, part] @ query[part] / size**0.5).softmax(dim=0)
        parts.append(weights @ values[:, part])
    out = pool.proj(torch.cat(parts))
    out = out + pool.mlp(layer_norm(out, out.shape, pool.norm.weight, pool.norm.bias, pool.norm.eps))
    return classifier(last(out))


def test_the_head_is_one_layer_of_cross_attention():
    torch.manual_seed(0)
    for width, heads in ((128, 2), (96, 1)):
        head = attentive_head(width, 5).eval()
        assert head[1].num_heads == heads
        tokens = torch.randn(3, 11, width)
        for one, logits in zip(tokens, head(tokens), strict=True):
            torch.testing.assert_close(logits, plain_head(head, one), atol=1e-5, rtol=1e-5)


ATTENTIVE = [
    "--probe",
    "attentive",
    "--set",
    "probe.epochs=6",
    "--set",
    "probe.learning_rates=[0.003,0.0001]",
]


def test_attentive_probe(model, checkpoint, tmp_path, capsys, count_videos):  # noqa: F811
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    assert probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE)) == 0
    found = results(tmp_path)
    assert found["task"] == "attentive_probe" and found["metrics"]["accuracy"]["plain"]["top1"] == 100.0
    assert len(found["details"]["heads"]) == 2 and found["details"]["chosen"] in (0.003, 0.0001)
    best = max(head["top1"] for head in found["details"]["heads"])
    assert found["metrics"]["best head on the test videos"]["plain"]["top1"] == best
    assert "held-out top-1" in capsys.readouterr().out
    about = json.loads((tmp_path / "out/test/tokens/tokens.json").read_text())
    kept = np.fromfile(tmp_path / "out/test/tokens/tokens.bin", np.float16).reshape(6, *about["shape"])
    for i, row in enumerate(about["rows"]):
        frames, _, _ = read_clip(row[0], 12)
        with torch.no_grad():
            tokens = model.encode_video(normalize(clip_transform("test", model.image_size)(frames))[None])[1][
                0
            ]
        np.testing.assert_allclose(kept[i], tokens, atol=2e-3, rtol=2e-3)
    embedded = sum(count_videos)
    assert (
        probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE)) == 0
    )  # with the tokens that are there
    assert sum(count_videos) == embedded + 2  # those whose size says how large a row is
    assert results(tmp_path)["queries"] == found["queries"]
    assert probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE, "--set", "num_frames=4")) == 0
    assert (tmp_path / "out/test/tokens/tokens.bin").stat().st_size < kept.nbytes


STOPPED = """
import os, signal, sys
from downstream import probe
from downstream.embedding.token_cache import TokenCache

add, calls = TokenCache.add, []
def add_and_stop(self, rows):
    add(self, rows)
    calls.append(rows)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGNAL)
TokenCache.add = add_and_stop
sys.exit(probe.main(sys.argv[1:]))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_tokens_made_before_a_stop_are_kept(stop, checkpoint, tmp_path, count_videos):  # noqa: F811
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    words = probe_arguments(tmp_path, checkpoint, *ATTENTIVE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", STOPPED.replace("SIGNAL", stop.name), *words]
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if stop == signal.SIGINT:
        assert stopped.returncode == 130
        assert "the tokens of 4 of 12 videos are kept in" in stopped.stderr
    assert probe.main(words) == 0
    assert sum(count_videos) == 18 - 4 + 2
    after = results(tmp_path)["queries"]
    assert probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE, out="whole")) == 0
    assert results(tmp_path, "whole")["queries"] == after


@pytest.mark.heavy
def test_two_processes_write_the_tokens_of_one(checkpoint, tmp_path):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta", clips=5)
    with torchrun(
        "downstream/probe.py", probe_arguments(tmp_path, checkpoint, *ATTENTIVE, out="two"), cwd=tmp_path
    ) as ended:
        assert probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE, out="one")) == 0
        ended()
    same_results(tmp_path / "one", tmp_path / "two")


def test_a_disk_without_room_for_the_tokens(checkpoint, tmp_path, capsys, monkeypatch):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    monkeypatch.setattr(token_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(SystemExit) as stop:
        probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE))
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "all tokens of 12 videos take" in said and "GB free" in said and "num_frames=4" in said


def test_an_unreadable_video_is_left_out_of_the_tokens(checkpoint, tmp_path, capsys):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    next((tmp_path / "data").rglob("train_source1_0.avi")).write_bytes(b"")
    assert probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE)) == 1
    assert "1 of 18 videos cannot be read" in capsys.readouterr().err
    assert probe.main(probe_arguments(tmp_path, checkpoint, *ATTENTIVE, "--allow-missing")) == 0
    assert results(tmp_path)["counts"]["training videos"] == 11


def test_test_videos_of_classes_without_training_videos_are_counted(checkpoint, tmp_path, capsys):
    layouts.own_folder(tmp_path / "mine", clips=3, train=0, test=50)
    layouts.write_video(tmp_path / "mine/test/wave/0.mp4", seed=3)
    words = probe_arguments(tmp_path, checkpoint, "--probe", "knn")
    words[words.index("--dataset") : words.index("--dataset") + 2] = ["--folder", str(tmp_path / "mine")]
    words = [
        word
        for i, word in enumerate(words)
        if not (word.startswith(("data.root", "meta=")) or (word == "--set"))
    ]
    assert probe.main(words) == 0
    assert "1 video of 7 to test on are of classes that no training video has" in capsys.readouterr().err


def several_labels(tmp_path, *more: str) -> list[str]:
    """Two colours, and both of the classes that a video may have; one video has none."""
    rows = {"train": [], "test": []}
    for split, number, first in (("train", 6, 0), ("test", 3, 50)):
        for label, name in enumerate(("runs", "sits")):
            for i in range(number):
                path = f"{split}_{name}_source{i}.mp4"
                layouts.write_video(tmp_path / "videos" / path, seed=label, first_frame=first + i)
                rows[split] += [f"{path},{name}", f"{path},moves"] if label == 0 else [f"{path},{name}"]
        rows[split].append(f"{split}_nothing.mp4,")
        layouts.write_video(tmp_path / f"videos/{split}_nothing.mp4", seed=7)
        layouts.write_text(tmp_path / f"lists/{split}.csv", "\n".join(["path,label", *rows[split]]) + "\n")
    files = json.dumps({"train": "train.csv", "test": "test.csv"})
    where = [f"data.root={tmp_path / 'videos'}", f"meta={tmp_path / 'lists'}", f"data.files={files}"]
    sets = [word for key in [*where, "data.multi_label=true"] for word in ("--set", key)]
    return ["--dataset", "labels", *sets, "-d", "cpu", "--num-workers", "0", *more]


@pytest.mark.parametrize("name", ["linear", "knn", "few-shot", "attentive"])
def test_probes_of_videos_with_several_labels(name, checkpoint, tmp_path, capsys):
    settings = ("probe.epochs=6", "probe.neighbours=[4]", "probe.shots=[4]")
    more = [*(word for each in settings for word in ("--set", each)), "--output", str(tmp_path / "out")]
    words = several_labels(tmp_path, "--arch", "TVTSv2_Demo", "-r", str(checkpoint), *more)
    assert probe.main([*words, "--probe", name]) == 0
    found = json.loads(next((tmp_path / "out").rglob("results.json")).read_text())
    assert next(iter(found["metrics"].values()))["plain"] == {"mAP": 100.0}
    assert {row["name"]: row["videos"] for row in found["details"]["per_class"]} == {
        "moves": 3, "runs": 3, "sits": 3,
    }  # fmt: skip
    assert found["counts"] == {"training videos": 13, "test videos": 7, "classes": 3}
    if name != "knn":
        assert "mAP" in capsys.readouterr().out.split("\n")[0]


def test_few_shot_of_videos_with_several_labels(checkpoint, tmp_path, capsys):
    more = ["--set", "probe.shots=[4,7,1]", "--set", "probe.draws=2", "--output", str(tmp_path / "out")]
    words = several_labels(tmp_path, "--arch", "TVTSv2_Demo", "-r", str(checkpoint), *more)
    assert probe.main([*words, "--probe", "few-shot"]) == 0
    found = results(tmp_path, "out/few_shot")
    assert list(found["metrics"]) == ["4 videos a class", "1 video a class"]
    said = capsys.readouterr().out
    assert "mAP, mean" in said and "without [7]: 'moves' has 6 training videos" in said
    (x, train), (test, true) = (embeddings_of_several(tmp_path, split) for split in ("train", "test"))
    assert true[:6].any(dim=1).all() and not true[6].any()  # which does not count
    for shots, told in found["details"]["draws"].items():
        for seed, value in enumerate(told["mAP"]):
            chosen = draw([row.nonzero().flatten().tolist() for row in train], int(shots), seed)
            scores = []
            for k in range(3):  # moves, runs, sits: a classifier of yes or no each
                classifier = LogisticRegression(C=1.0, tol=1e-9, max_iter=1000)
                classifier.fit(unit(x[chosen]), train[chosen, k])
                order = np.argsort(-classifier.decision_function(unit(test[:6])), kind="stable")
                hit = true[:6][order, k]
                scores.append(float((hit * hit.cumsum(0) / torch.arange(1, 7)).sum() / hit.sum()))
            assert value == pytest.approx(100 * np.mean(scores))


def embeddings_of_several(tmp_path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [N, D] of the videos of `several_labels` and, bool [N, 3], whether one moves, runs, sits."""
    table = load_features(tmp_path / f"out/{split}/video_embeddings.safetensors")
    labels = [["_runs_" in path, "_runs_" in path, "_sits_" in path] for path in table.columns["path"]]
    return torch.from_numpy(table.features), torch.tensor(labels)


def test_votes_of_several_labels_and_the_loss_of_each_class():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(20, 4)), rng.normal(size=(5, 4))
    targets = rng.random((20, 3)) < 0.4
    x, y = torch.tensor(train), torch.tensor(targets).double()
    shares = votes(x, y, torch.tensor(test), 3, [6], 0.07)[6]
    for one, found in zip(test, shares, strict=True):
        cosines = [float(x @ one / np.linalg.norm(x) / np.linalg.norm(one)) for x in train]
        nearest = sorted(range(20), key=lambda i: -cosines[i])[:6]
        weights = np.array([np.exp(cosines[i] / 0.07) for i in nearest])
        np.testing.assert_allclose(found, weights @ targets[nearest] / weights.sum(), atol=1e-6)
    weights = linear_probe.fit(x, y, 3, penalty=1 / 20)
    for k in range(3):
        own = LogisticRegression(C=1.0, tol=1e-9, max_iter=1000).fit(train, targets[:, k])
        np.testing.assert_allclose(weights[:-1, k], own.coef_[0], atol=1e-4)
