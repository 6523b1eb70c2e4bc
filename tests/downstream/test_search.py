"""Searching features by text, against a plain version; its page in a real browser; mistakes."""

import io
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from CLIP import tokenize
from downstream import feature_extraction, search
from downstream.feature_files import FeatureTable, load_features, write_features
from downstream.search import clock

from .browser import document, elements, files_beside, needs_chromium, outside
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
    rows = [line.split("  ") for line in printed.splitlines() if line.startswith("  ") and ".mp4" in line]
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
    assert len(links) == 8 and len(files_beside(page, seen)) <= 4
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
    (tmp_path / "x.pt").write_bytes(b"x")
    assert ".parquet" in mistake("-f", tmp_path / "x.pt")


def test_a_video_and_a_row(world, checkpoint, capsys):
    """A row itself is left out of what is like it; its own video, given as a file, comes first."""
    video = world / "my videos" / "2.mp4"
    features = world / "videos.safetensors"
    assert ask(world, checkpoint, "--near", video, "-f", features) == 0
    near = lines(capsys.readouterr().out)
    assert near[0] == ["1", "1.000", str(video)]
    assert ask(world, "gone.pth", "--row", 2, "-f", features) == 0  # without a model
    row = lines(capsys.readouterr().out)
    assert [hit[1:] for hit in row] == [hit[1:] for hit in near[1:]]


def test_several_at_once_with_weights(world, checkpoint, model, capsys):
    features = world / "videos.safetensors"
    given = ("a dog", "--row", 0, 3, "--together", 1, 0.5, -2, "-f", features)
    assert ask(world, checkpoint, *given) == 0
    said = capsys.readouterr().out
    table = load_features(features)
    with torch.no_grad():
        text = model.encode_text(tokenize(["a dog"]))[0].numpy()
    directions = [x / np.linalg.norm(x) for x in (text, table.features[0], table.features[3])]
    query = directions[0] + 0.5 * directions[1] - 2 * directions[2]
    cosines = table.features @ query / np.linalg.norm(table.features, axis=1) / np.linalg.norm(query)
    expected = sorted(((cosines[row], table.columns["path"][row]) for row in (1, 2)), reverse=True)
    assert [path for _, _, path in lines(said)] == [path for _, path in expected]
    np.testing.assert_allclose([float(x) for _, x, _ in lines(said)], [x for x, _ in expected], atol=1.5e-3)
    assert f"+1·(a dog) +0.5·(row 0: {table.columns['path'][0]}) -2·(row 3: " in said


def test_only_rows_with_what_is_asked_for(world, checkpoint, capsys):
    video = world / "my videos" / "1.mp4"
    given = ("a dog", "-f", world / "windows.parquet", "--where", f"path={video}", "start>0")
    assert ask(world, checkpoint, *given) == 0
    said = capsys.readouterr().out
    assert {hit[2] for hit in lines(said)} == {str(video)} and len(lines(said)) == 2
    assert f"12 vectors of 4 videos, TVTSv2_Demo; 2 of them path={video} start>0" in said
    assert ask(world, checkpoint, "a dog", "-f", world / "windows.parquet", "--where", "start>99") == 0
    said = capsys.readouterr().out
    assert "; 0 of them start>99" in said and not lines(said)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_what_was_found(world, checkpoint, tmp_path, ending, capsys):
    (tmp_path / "queries.txt").write_text("a dog runs\nthe sea\n")
    out = tmp_path / "new" / f"found.{ending}"
    given = (tmp_path / "queries.txt", "-f", world / "windows.parquet", "--top", 3, "--output", out)
    assert ask(world, checkpoint, *given) == 0
    shown = lines(capsys.readouterr().out)
    read = {"csv": pd.read_csv, "jsonl": partial(pd.read_json, lines=True), "parquet": pd.read_parquet}
    frame = read[ending](out)
    table = load_features(world / "windows.parquet")
    assert frame["query"].tolist() == ["a dog runs"] * 3 + ["the sea"] * 3
    assert frame["rank"].tolist() == [1, 2, 3] * 2
    assert frame["path"].tolist() == [hit[2] for hit in shown]
    np.testing.assert_allclose(frame["similarity"], [float(hit[1]) for hit in shown], atol=6e-4)
    for name, column in table.columns.items():
        assert frame[name].tolist() == [column[row] for row in frame["row"]]


def test_columns_that_are_called_as_those_of_what_was_found(tmp_path):
    columns = {"path": [f"/{i}.mp4" for i in range(3)], "rank": ["mine"] * 3, "row": np.arange(3) * 100}
    write_features(tmp_path / "f.npz", FeatureTable(np.eye(3, dtype=np.float32), columns, {}))  # of no model
    given = ["--row", "0", "-f", str(tmp_path / "f.npz"), "--output", str(tmp_path / "found.csv")]
    assert search.main(given) == 0
    frame = pd.read_csv(tmp_path / "found.csv")
    assert frame["rank"].tolist() == [1, 2] and frame["features.rank"].tolist() == ["mine"] * 2
    assert (frame["features.row"] == 100 * frame["row"]).all()
    assert search.main([*given, "--where", "rank=yours"]) == 0
    assert pd.read_csv(tmp_path / "found.csv").columns.tolist()[:4] == ["query", "rank", "similarity", "row"]


def test_features_that_do_not_say_their_model(tmp_path, capsys):
    times = {"start": ["early"] * 2, "end": ["late"] * 2}
    table = FeatureTable(np.eye(2, dtype=np.float32), {"path": ["/a.mp4", "/b.mp4"], **times}, {})
    write_features(tmp_path / "f.npz", table)
    assert search.main(["--row", "0", "-f", str(tmp_path / "f.npz")]) == 0
    assert "/b.mp4" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        search.main(["a dog", "-f", str(tmp_path / "f.npz")])
    assert stop.value.code == 2 and "do not say which model made them" in capsys.readouterr().err


def test_a_table_of_names_that_are_not_utf8(checkpoint, tmp_path):
    video = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp4"))
    write_video(tmp_path / "a.mp4", seed=1).rename(video)
    assert extract(checkpoint, video, "-o", tmp_path / "a.npz") == 0
    given = ("a dog", "-f", tmp_path / "a.npz", "--output", tmp_path / "found.csv")
    assert ask(tmp_path, checkpoint, *given) == 0
    assert "caf\\udce9.mp4" in (tmp_path / "found.csv").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--where", "lable=x"), "has no column 'lable'"),
        (("--where", "path"), "is no condition"),
        (("--row", 4), "there is no row 4; the features have rows 0 to 3"),
        (("--together", 1, 2), "--together has 2 weights for 1 queries, which are, in this order: a dog"),
        (("--row", 0, "--together", "nan", 1), "must be finite"),
        (("--row", 0, 0, "--together", 0, 1, -1), "cancel each other out"),
        (("--output", "found.txt"), "must end in one of .csv, .jsonl, .parquet"),
        (("--image", "gone.png"), "no image file gone.png"),
        (("--near", "gone.mp4"), "gone.mp4: no such file"),
    ],
)
def test_mistakes(world, mistake, given, message):
    assert message in mistake("-f", world / "videos.safetensors", *given)


def test_together_needs_queries(world, checkpoint, capsys):
    with pytest.raises(SystemExit) as stop:
        ask(world, checkpoint, "-f", world / "videos.safetensors", "--together")
    assert stop.value.code == 2 and "--together needs queries" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        search.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--features",
        "--image",
        "--near",
        "--row",
        "--where",
        "--output",
        "--top",
        "--one-per-video",
        "--page",
        "--checkpoint",
        "examples",
    ):
        assert option in shown
