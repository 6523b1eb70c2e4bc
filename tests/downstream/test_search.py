"""Searching features by text, against a plain version; its page in a real browser; mistakes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from CLIP import tokenize
from downstream import feature_extraction, search
from downstream.feature_files import FeatureTable, load_features, write_features
from downstream.search import VideoIndex, clock

from .browser import document, elements, needs_chromium, outside
from .layouts import write_video

QUERIES = ["a dog runs", "the sea at night"]


def extract(checkpoint: Path, *more: object) -> int:
    fixed = ["--arch", "TVTSv2_Demo", "--checkpoint", checkpoint, "--num-workers", 0, "--device", "cpu"]
    return feature_extraction.main([str(x) for x in [*more, *fixed]])


@pytest.fixture(scope="module")
def world(checkpoint, tmp_path_factory) -> Path:
    """Four videos of two seconds, whole in videos.safetensors, in windows of 0.8 s in windows.parquet."""
    folder = tmp_path_factory.mktemp("world")
    for i in range(4):
        write_video(folder / "my videos" / f"{i}.mp4", seed=i)
    assert extract(checkpoint, folder / "my videos", "-o", folder / "videos.safetensors") == 0
    assert extract(checkpoint, folder / "my videos", "-o", folder / "windows.parquet", "--window", 0.8) == 0
    return folder


def plain_ranking(model, table: FeatureTable, query: str) -> list[tuple[int, float]]:
    """(row, cosine), nearest first, one row after the other."""
    with torch.no_grad():
        text = model.encode_text(tokenize([query]))[0].numpy().astype(np.float64)
    cosines = []
    for row, vector in enumerate(table.features.astype(np.float64)):
        cosines.append((row, vector @ text / (np.linalg.norm(vector) * np.linalg.norm(text))))
    return sorted(cosines, key=lambda pair: -pair[1])


def ask(world, checkpoint, *given: object) -> int:
    return search.main([str(x) for x in [*given, "--checkpoint", checkpoint, "--device", "cpu"]])


def lines(printed: str) -> list[list[str]]:
    """The columns of the hits."""
    rows = [line.split("  ") for line in printed.splitlines() if ".mp4" in line]
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_whole_videos(world, checkpoint, model, capsys):
    assert ask(world, checkpoint, *QUERIES, "-f", world / "videos.safetensors") == 0
    shown = lines(capsys.readouterr().out)
    table = load_features(world / "videos.safetensors")
    expected = [hit for query in QUERIES for hit in plain_ranking(model, table, query)]
    assert [path for _, _, path in shown] == [table.columns["path"][row] for row, _ in expected]
    assert [int(place) for place, _, _ in shown] == [1, 2, 3, 4] * 2
    np.testing.assert_allclose([float(x) for _, x, _ in shown], [c for _, c in expected], atol=1.5e-3)


def test_windows_with_their_times(world, checkpoint, model, capsys):
    assert ask(world, checkpoint, QUERIES[0], "-f", world / "windows.parquet", "--top", 5) == 0
    shown = lines(capsys.readouterr().out)
    table = load_features(world / "windows.parquet")
    times = {0.0: "0:00–0:00.8", 0.8: "0:00.8–0:01.6", 1.6: "0:01.6–0:02"}
    for (row, _), (_, _, path, when) in zip(plain_ranking(model, table, QUERIES[0])[:5], shown, strict=True):
        assert path == table.columns["path"][row]
        assert when == times[round(float(table.columns["start"][row]), 1)]


def test_each_video_once(world, checkpoint, model, capsys):
    given = (QUERIES[0], "-f", world / "windows.parquet", "--top", 3, "--one-per-video")
    assert ask(world, checkpoint, *given) == 0
    table = load_features(world / "windows.parquet")
    order = [table.columns["path"][row] for row, _ in plain_ranking(model, table, QUERIES[0])]
    assert [row[2] for row in lines(capsys.readouterr().out)] == list(dict.fromkeys(order))[:3]


def test_several_files_are_searched_together(world, checkpoint, capsys):
    files = (world / "videos.safetensors", world / "windows.parquet")
    assert ask(world, checkpoint, QUERIES[0], "-f", *files, "--top", 100) == 0
    shown = lines(capsys.readouterr().out)
    assert len(shown) == 4 + 12 and len([row for row in shown if len(row) == 4]) == 12


def test_queries_are_asked_for(world, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a dog runs\n\nthe sea\n"))
    assert ask(world, checkpoint, "-f", world / "videos.safetensors") == 0
    out = capsys.readouterr().out
    assert "a dog runs  (" in out and "the sea  (" in out


def test_queries_from_a_file(world, checkpoint, tmp_path, capsys):
    (tmp_path / "queries.txt").write_text("a dog runs\nthe sea\n")
    assert ask(world, checkpoint, tmp_path / "queries.txt", "-f", world / "videos.safetensors") == 0
    assert "the sea  (" in capsys.readouterr().out


@needs_chromium
def test_page(world, checkpoint, tmp_path, capsys):
    page = tmp_path / "found.html"
    given = (*QUERIES, "-f", world / "windows.parquet", "--top", 4, "--page", page)
    assert ask(world, checkpoint, *given) == 0
    shown = lines(capsys.readouterr().out)
    seen = document(page, tmp_path / "profile")
    expected = [f"{place}. {Path(path).name} {when} {cosine}" for place, cosine, path, when in shown]
    assert elements(seen, "card") == expected
    assert seen.count('class="picture t') == 8
    links = outside(seen)
    assert len(links) == 8 and all(link.startswith("file://") and "my%20videos" in link for link in links)
    start = {"0:00": "0", "0:00.8": "0.8", "0:01.6": "1.6"}[shown[0][3].split("–")[0]]
    assert f"#t={start}," in links[0]


def test_a_page_does_without_videos_that_are_gone(checkpoint, tmp_path):
    video = write_video(tmp_path / "a.mp4", seed=1)
    assert extract(checkpoint, video, "-o", tmp_path / "a.npz") == 0
    video.unlink()
    given = ("a dog", "-f", tmp_path / "a.npz", "--page", tmp_path / "found.html")
    assert ask(tmp_path, checkpoint, *given) == 0
    assert "no such file" in (tmp_path / "found.html").read_text()


def test_a_page_that_cannot_be_written(world, checkpoint, tmp_path, capsys, blocked):
    given = ("a dog", "-f", world / "videos.safetensors", "--page")
    with pytest.raises(SystemExit) as stop:
        ask(world, checkpoint, *given, blocked / "found.html")
    assert stop.value.code == 2
    assert f"error: could not write {blocked}" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        ask(world, checkpoint, *given, tmp_path)
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert len(lines(said.out)) == 4 and f"error: could not write {tmp_path}: Is a directory" in said.err


def test_a_distributed_checkpoint_searches_in_its_features(world, sharded, tmp_path, capsys):
    out = tmp_path / "one.npz"
    assert extract(sharded, world / "my videos" / "0.mp4", "-o", out) == 0
    assert ask(world, sharded, "a dog", "-f", out) == 0
    assert len(lines(capsys.readouterr().out)) == 1


def test_an_index_against_numpy(monkeypatch):
    """More rows than a block; long videos, so that each video once takes several rounds."""
    monkeypatch.setattr(search, "BLOCK", 64)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((500, 32)).astype(np.float32) * rng.uniform(0.1, 10, (500, 1))
    features[:300] += 2.0  # the first video is near to what is asked for
    names = ["long"] * 300 + [f"video{i // 10}" for i in range(200)]
    start = np.arange(500.0)
    columns = {"path": names, "start": start, "end": start + 1}
    table = FeatureTable(features.astype(np.float32), columns, {})
    index = VideoIndex(32)
    index.add(table.take(range(123)))
    index.add(table.take(range(123, 500)))
    query = np.ones((1, 32), np.float32)
    cosines = (features @ query[0]) / np.linalg.norm(features, axis=1) / np.sqrt(32)
    order = np.argsort(-cosines)
    (hits,) = index.search(query, 20)
    assert [hit.start for hit in hits] == order[:20].tolist()
    np.testing.assert_allclose([hit.similarity for hit in hits], cosines[order[:20]], atol=1e-3)
    (once,) = index.search(query, 5, one_per_video=True)
    assert [hit.path for hit in once] == list(dict.fromkeys(names[i] for i in order))[:5]
    assert len(index.search(query, 50, one_per_video=True)[0]) == 21


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (80, "1:20"), (3599.96, "1:00:00"), (3725.5, "1:02:05.5")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.fixture
def mistake(world, checkpoint, capsys):
    def message(*given: object) -> str:
        with pytest.raises(SystemExit) as stop:
            ask(world, checkpoint, "a dog", *given)
        assert stop.value.code == 2
        return capsys.readouterr().err

    return message


def test_features_of_other_weights_are_refused(world, tmp_path, mistake, model):
    other = tmp_path / "other.safetensors"
    table = load_features(world / "videos.safetensors")
    write_features(
        other, FeatureTable(table.features, table.columns, table.metadata | {"checkpoint_sha256": "0" * 64})
    )
    assert "made with other weights" in mistake("-f", other)
    assert "different models" in mistake("-f", world / "videos.safetensors", other)


def test_what_is_no_features_of_videos_is_refused(world, checkpoint, tmp_path, mistake):
    assert extract(checkpoint, "--text", "a dog", "-o", tmp_path / "texts.npz") == 0
    assert "features of texts" in mistake("-f", tmp_path / "texts.npz")
    (tmp_path / "x.safetensors").write_bytes(json.dumps({}).encode() * 10)
    assert "holds no extracted features" in mistake("-f", tmp_path / "x.safetensors")
    assert "gone.npz" in mistake("-f", tmp_path / "gone.npz")
    assert ".parquet" in mistake("-f", tmp_path / "x.pt")


def test_features_that_are_not_finite_are_refused(world, tmp_path):
    table = load_features(world / "videos.safetensors")
    table.features[1, 3] = np.nan
    write_features(tmp_path / "broken.safetensors", table)
    with pytest.raises(ValueError, match=r"broken\.safetensors: the vector of .*1\.mp4 holds NaN"):
        VideoIndex.from_files([tmp_path / "broken.safetensors"])


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        search.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--features", "--top", "--one-per-video", "--page", "--checkpoint", "examples"):
        assert option in shown
