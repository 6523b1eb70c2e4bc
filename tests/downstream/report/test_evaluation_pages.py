"""The pages of --report, in a real browser; and what they are made of, by hand."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_entry
from data_loader.dataset import VideoDataset
from data_loader.multiple_choice import QuestionRecords
from data_loader.records import Records
from downstream import linear_probe, multiple_choice, recognition, retrieval
from downstream.options import CONFIGS
from downstream.prompts import prompt_templates
from downstream.report import Evaluation, Measurement, first_ranked
from downstream.report.evaluation_pages import confusion, evaluation_facts, ranking_item, tell_options
from downstream.report.pictures import GAP
from model.metric import label_ranks
from utils.config import load_config
from utils.schema import EvaluationConfig

from .. import layouts
from ..browser import document, elements, files_beside, needs_chromium, screenshot

GREEN = (0x16, 0x80, 0x3C)  # what the true one is framed with


def run(main, dataset: str, folder, checkpoint, *more: str) -> dict:
    given = [
        "--dataset",
        dataset,
        "--set",
        f"data.root={folder / 'data'}",
        "--set",
        f"meta={folder / 'meta'}",
    ]
    given += ["--arch", "TVTSv2_Demo", "-r", str(checkpoint), "-d", "cpu", "--num-workers", "0"]
    given += ["--output", str(folder / "out"), "--report", str(folder / "pages"), *more]
    assert main(given) == 0
    return json.loads((folder / "out/results.json").read_text())


def thumbnail(page: str, video: str) -> np.ndarray:
    """The picture that a page shows of a video."""
    style = re.search(rf'class="picture (t\d+)" href="[^"]*" aria-label="play {video}"', page).group(1)
    uri = re.search(rf'\.{style} {{ background-image: url\("data:image/jpeg;base64,([^"]*)', page).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))


def framed_part(picture: np.ndarray) -> np.ndarray:
    """The picture [72, 292, 3] in the topmost green frame of a screenshot."""
    green = np.abs(picture.astype(int) - GREEN).max(axis=2) < 8
    top = int(np.argmax(green.sum(axis=1) > 100))
    left = int(np.flatnonzero(green[top]).mean()) - 146
    return picture[top + 7 : top + 79, left : left + 292]


@pytest.mark.heavy
@needs_chromium
def test_retrieval_page(checkpoint, tmp_path, capsys):
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    results = run(retrieval.main, "msrvtt", tmp_path, checkpoint)
    page = tmp_path / "pages/retrieval_msrvtt.html"
    assert f"page: {page}" in capsys.readouterr().out
    seen = document(page, tmp_path / "profile")
    videos = set((tmp_path / "data").rglob("*.mp4"))
    there = {page.parent / "index.html", *videos}
    assert files_beside(page, seen) == files_beside(page, page.read_text()) == there

    queries = sorted(results["queries"], key=lambda query: -query["rank"])
    ranks = [f"rank {query['rank']}" for query in queries if query["rank"] > 1]
    assert elements(seen, "rank") == ranks and ranks
    assert elements(seen, "item")[0].startswith(f"rank {queries[0]['rank']} “{queries[0]['caption']}” ")
    cards = re.findall(
        r'<div class="card( true)?">.*?aria-label="play (\w+)".*?(\d)\.&nbsp;', seen, re.DOTALL
    )
    assert len(cards) == 25  # five videos for each of five queries
    true = [(video, int(rank)) for mark, video, rank in cards if mark]
    assert true == [(query["video"], query["rank"]) for query in queries]

    shown = framed_part(screenshot(page, tmp_path / "profile"))
    expected = thumbnail(seen, queries[0]["video"])
    assert expected.shape == (48, 3 * 64 + 2 * GAP, 3)
    for y, x in ((0.2, 0.12), (0.4, 0.45), (0.88, 0.87)):  # one in each frame of the strip
        pixel = shown[int(y * 72), int(x * 292)].astype(int)
        assert np.abs(pixel - expected[int(y * 48), int(x * 196)]).max() < 30


def test_a_true_video_that_came_late_is_shown_too():
    query = {
        "caption": "a dog runs",
        "video": "late",
        "rank": 42,
        "similarity": 0.1,
        "top": [["a", 0.5], ["b", 0.4]],
    }
    cards = ranking_item(query, {"a": "a cat", "late": "a dog runs"})["cards"]
    assert [(card["rank"], card["picture"], card["true"]) for card in cards] == [
        (1, "a", False),
        (2, "b", False),
        (42, "late", True),
    ]
    assert [card["caption"] for card in cards] == ["a cat", "", ""]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('["a person {}"]', "“a person {}”"),
        ('["{}", "a {}"]', "“{}”, “a {}”"),
        ("clip-ucf101", "clip-ucf101: “a photo of a person {}.”, "),
    ],
)
def test_prompts_are_said_once(given, words):
    config = load_config(
        EvaluationConfig, CONFIGS / "hmdb51.json", [f"prompts={given}", "segments=4", "num_frames=12"]
    )
    row = {"top1": 50.0, "top5": 90.0}
    details = {"prompts": prompt_templates(config.prompts)}
    measured = Measurement({"accuracy": {"plain": row}}, [], {"videos": 10}, details)
    facts = evaluation_facts(Evaluation("recognition", config, "TVTSv2_B_16", measured))
    assert facts["prompts"].startswith(words)
    assert facts["settings"] == "segments=4"


def test_of_equal_options_only_the_right_one_is_marked():
    options, scores = ["a dog", "a cat", "a dog", "a dog"], torch.tensor([[0.2, 0.5, 0.2, 0.2]])
    query = {"video": "v", "answer": "a dog", "rank": label_ranks(scores, [2])[0], "similarity": 0.2}
    for most in (5, 1):
        cards = ranking_item(query | {"top": first_ranked(scores[0], options, most)}, {})["cards"]
        marked = [(card["rank"], card["label"]) for card in cards if card["true"]]
        assert marked == [(3, "a dog")]


@needs_chromium
def test_multiple_choice_page(checkpoint, tmp_path):
    layouts.ssv2(tmp_path / "data", tmp_path / "meta")
    results = run(multiple_choice.main, "ssv2_mc", tmp_path, checkpoint)
    seen = document(tmp_path / "pages/multiple_choice_ssv2_mc.html", tmp_path / "profile")
    queries = sorted(results["queries"], key=lambda query: -query["rank"])
    true = [text.split(". ", 1)[1] for text in elements(seen, "card true text")]
    assert [text.rsplit(" ", 4)[0] for text in true] == [query["answer"] for query in queries]
    assert seen.count('class="picture t') == len(queries)
    assert len(files_beside(tmp_path / "pages/multiple_choice_ssv2_mc.html", seen)) == len(queries) + 1


def test_it_is_said_how_many_options_there_were(tmp_path):
    class Questions(QuestionRecords):
        def __init__(self, *numbers: int):
            Records.__init__(self, tmp_path, [f"{i}.mp4" for i in range(len(numbers))])
            self.numbers = numbers

        def options(self, index: int) -> list[str]:
            return ["an option"] * self.numbers[index]

    dataset = VideoDataset(Questions(3, 6, 174))
    items = [
        {"picture": f"{i}.mp4", "cards": [{"rank": rank} for rank in ranks]}
        for i, ranks in enumerate([(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 60)])
    ]
    tell_options(items, dataset)
    assert [item["note"] for item in items] == [
        "3 options: all are shown",
        "6 options: the 5 nearest are shown",
        "174 options: the 5 nearest are shown and the true one",
    ]


@needs_chromium
def test_recognition_page(checkpoint, tmp_path):
    layouts.recognition("ucf101", tmp_path / "data", tmp_path / "meta")
    results = run(recognition.main, "ucf101", tmp_path, checkpoint)
    seen = document(tmp_path / "pages/recognition_ucf101.html", tmp_path / "profile")
    pairs = [(query["class"], query["predicted"]) for query in results["queries"]]
    expected = {f"{true} → {guess}: {pairs.count((true, guess))} of 2" for true, guess in pairs}
    assert set(elements(seen, "cell")) == expected
    for name in layouts.CLASSES:
        right = 50 * pairs.count((name, name))
        assert re.search(rf"<td>{name}</td><td[^>]*>2</td><td[^>]*>{right:.1f}</td>", seen)
    page = tmp_path / "pages/recognition_ucf101.html"
    wrong = [query["video"] for query in results["queries"] if query["rank"] > 1]
    assert wrong and sorted(re.findall(r'aria-label="play ([^"]*)"', seen)) == sorted(wrong)
    assert len(files_beside(page, seen)) == len(wrong) + 1
    assert f"{len(wrong)} videos were taken for another class" in seen


def test_confusions_by_hand():
    rows = [("a", "a", 1), ("a", "b", 2), ("a", "b", 7), ("b", "b", 1), ("c", "a", 3)]
    queries = [{"video": str(i), "class": c, "predicted": p, "rank": r} for i, (c, p, r) in enumerate(rows)]
    found = confusion(queries, ["a", "b", "c", "d"])
    cells = [(c["row"], c["column"], c["count"], c["total"]) for c in found["cells"]]
    assert cells == [(0, 0, 1, 3), (0, 1, 2, 3), (1, 1, 1, 1), (2, 0, 1, 1)]
    assert [(c["true"], c["guess"], c["count"], c["total"]) for c in found["confusions"]] == [
        ("a", "b", 2, 3),
        ("c", "a", 1, 1),
    ]
    assert [[query["video"] for query in c["shown"]] for c in found["confusions"]] == [["2", "1"], ["4"]]
    assert found["rows"] == found["columns"] == ["a", "b", "c", "d"] and found["wrong"] == 3
    assert [(row["name"], row["top1"], row["top5"]) for row in found["per_class"]] == [
        ("c", 0, 100),
        ("a", pytest.approx(100 / 3), pytest.approx(200 / 3)),
        ("b", 100, 100),
    ]


def test_of_many_classes_the_matrix_has_those_that_were_confused():
    """400 classes of 10 videos: of each of the last 60 three are taken for the one after it."""
    classes = [f"class {i}" for i in range(400)]
    queries = []
    for i, name in enumerate(classes):
        for n in range(10):
            wrong = i >= 340 and n < 3
            guess = classes[(i + 1) % 400] if wrong else name
            queries.append({"video": f"{i}-{n}", "class": name, "predicted": guess, "rank": 1 + wrong})
    found = confusion(queries, classes)
    assert found["rows"] == classes[340:380] and found["columns"] == [*classes[340:380], "any other"]
    cells = {(c["row"], c["column"]): (c["count"], c["total"], c["case"]) for c in found["cells"]}
    assert cells[0, 0] == (7, 10, None) and cells[0, 1] == (3, 10, 0)
    assert cells[39, 40] == (3, 10, None)  # class 379 for class 380, which has no column of its own
    assert all(sum(c["count"] for c in found["cells"] if c["row"] == row) == 10 for row in range(40))
    assert len(found["confusions"]) == 50 and found["cases"] == 60 and found["wrong"] == 180
    assert found["cell"] * 41 + found["margin"] < 1000 and found["cell"] >= 16


def test_linear_probe_page(checkpoint, tmp_path):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    run(linear_probe.main, "hmdb51", tmp_path, checkpoint)
    page = (tmp_path / "pages/linear_probe_hmdb51.html").read_text()
    assert elements(page, "cell") == [f"{name} → {name}: 3 of 3" for name in layouts.CLASSES[:2]]


def test_a_page_stops_where_nobody_reads_on(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("downstream.report.evaluation_pages.MOST_QUERIES", 2)
    layouts.lsmdc(tmp_path / "data", tmp_path / "meta")
    results = run(retrieval.main, "lsmdc", tmp_path, checkpoint)
    page = (tmp_path / "pages/retrieval_lsmdc.html").read_text()
    assert "The 2 queries with the worst ranks, of 3" in page and page.count('class="item"') == 2
    best = min(results["queries"], key=lambda query: query["rank"])
    assert f"</span> “{best['caption']}”</h3>" not in page


def test_a_page_shows_what_is_left_of_a_data_set(checkpoint, tmp_path):
    layouts.lsmdc(tmp_path / "data", tmp_path / "meta")
    next((tmp_path / "data").rglob("*.avi")).write_bytes(b"")
    run(test_entry.main, "lsmdc", tmp_path, checkpoint, "--allow-missing")
    page = (tmp_path / "pages/retrieval_lsmdc.html").read_text()
    assert "WITHOUT 1 video " in page and page.count('class="item"') == 2


def test_names_are_escaped(checkpoint, tmp_path):
    layouts.didemo(tmp_path / "data", tmp_path / "meta")
    table = tmp_path / "meta/didemo/DiDeMo_test.tsv"
    table.write_text(table.read_text().replace(layouts.QUERIES[0], "<script>alert(1)</script>"))
    run(retrieval.main, "didemo", tmp_path, checkpoint)
    page = (tmp_path / "pages/retrieval_didemo.html").read_text()
    assert "&lt;script&gt;alert" in page and "<script>alert" not in page
