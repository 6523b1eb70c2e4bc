"""Intervals, ties and duplicates against plain counting; what must not move a figure does not."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import test as test_entry
from downstream import linear_probe, multiple_choice, recognition, retrieval
from downstream.recognition import mean_average_precision, mean_of_classes
from downstream.report.trust import DRAWS, alike, bootstrap, tied
from downstream.table import main as table_main

from .. import layouts
from ..test_commands import arguments, results
from ..test_processes import same_results


def test_intervals_are_those_of_drawing_again(checkpoint, tmp_path, capsys):
    """Recall, median and mean of ranks counted one query at a time."""
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    given = arguments(tmp_path, checkpoint, "--dsl", "--report", str(tmp_path / "pages"))
    assert retrieval.main(given) == 0
    found = results(tmp_path)
    rng = np.random.default_rng(0)
    draws = [rng.integers(5, size=5).tolist() for _ in range(DRAWS)]
    for kind, name in (("plain", "rank"), ("dsl", "dsl_rank")):
        ranks = [query[name] for query in found["queries"]]
        drawn = [sorted(ranks[i] for i in places) for places in draws]
        expected = {
            "R1": [100 * sum(rank <= 1 for rank in one) / 5 for one in drawn],
            "MedR": [one[2] for one in drawn],
            "MeanR": [sum(one) / 5 for one in drawn],
        }
        intervals = found["intervals"]["text to video"][kind]
        assert intervals.keys() == found["metrics"]["text to video"][kind].keys()
        for metric, values in expected.items():
            assert intervals[metric] == pytest.approx(np.percentile(values, [2.5, 97.5]))
    row = found["intervals"]["text to video"]["plain"]["MeanR"]
    shown = f"{row[0]:.1f}–{row[1]:.1f}"
    printed = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(printed) if line.startswith("text to video"))
    assert printed[place + 1].startswith("  95 % interval") and printed[place + 1].endswith(shown)
    assert shown in (tmp_path / "pages/retrieval_msrvtt.html").read_text()
    assert table_main([str(tmp_path / "out")]) == 0
    low, high = found["intervals"]["text to video"]["plain"]["R1"]
    assert f"](#run-1)<br>({low:.1f}–{high:.1f} / " in capsys.readouterr().out
    assert table_main([str(tmp_path / "out"), "--output", str(tmp_path / "table.csv")]) == 0
    header, first, *_ = (tmp_path / "table.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=False))
    assert (float(cells["R1_low"]), float(cells["R1_high"])) == (low, high)


def test_an_interval_is_about_as_wide_as_the_normal_one():
    hits = np.arange(1000) % 4 == 0
    low, high = bootstrap(lambda drawn: {"top1": 100 * float(hits[drawn].mean())}, 1000)["top1"]
    half = 1.96 * 100 * np.sqrt(0.25 * 0.75 / 1000)
    assert low == pytest.approx(25 - half, abs=0.4) and high == pytest.approx(25 + half, abs=0.4)
    assert bootstrap(lambda drawn: {"x": float(len(drawn))}, 1) == {"x": [1.0, 1.0]}


def test_accuracies_of_classes_by_hand():
    ranks, labels = np.array([1, 2, 1, 9, 1]), np.array([0, 0, 2, 2, 2])
    found = mean_of_classes(ranks, labels)
    assert found == pytest.approx({"top1": (50 + 200 / 3) / 2, "top5": (100 + 200 / 3) / 2})
    assert mean_of_classes(ranks[[2, 2]], labels[[2, 2]]) == {"top1": 100.0, "top5": 100.0}


@pytest.mark.parametrize("digits", [9, 0])  # 0: many videos of one score, as votes of few neighbours give
def test_mean_average_precision_of_drawn_videos(digits):
    rng = np.random.default_rng(0)
    targets, scores = rng.random((30, 7)) < 0.3, rng.normal(size=(30, 7)).round(digits)
    of_drawn = mean_average_precision(targets, scores)
    for drawn in (np.arange(30), rng.integers(30, size=30), np.array([3, 3, 5])):
        expected = [
            average_precision_score(targets[drawn, k], scores[drawn, k])
            for k in range(7)
            if targets[drawn, k].any()
        ]
        assert of_drawn(drawn)["mAP"] == pytest.approx(100 * np.mean(expected))


def test_ties_and_duplicates_by_hand():
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.2, 0.3, 0.2], [0.3, 0.3 + 1e-12, 0.1], [0.3, 0.3001, 0.1]])
    assert tied(scores.double(), [0, 1, 1, 1]) == 2
    assert tied(scores.double(), [2, 0, 2, 2]) == 1
    rows = torch.randn(2500, 16, generator=torch.Generator().manual_seed(0))
    assert alike(rows) == 0
    rows[2400] = 3 * rows[7] + 1e-7
    rows[[5, 1500]] = rows[[2000]]
    assert alike(rows) == 5


def test_ties_and_duplicates_are_counted_in_a_warning(checkpoint, tmp_path, capsys):
    layouts.didemo(tmp_path / "data", tmp_path / "meta")
    (tmp_path / "data/clips/v3.mp4").write_bytes((tmp_path / "data/clips/v1.mp4").read_bytes())
    table = tmp_path / "meta/didemo/DiDeMo_test.tsv"
    table.write_text(table.read_text().replace(layouts.QUERIES[2], layouts.QUERIES[0]))
    assert retrieval.main(arguments(tmp_path, checkpoint, dataset="didemo")) == 0
    ties = {"captions of several videos": 2, "tied captions": 3, "videos of the same embedding": 2}
    assert results(tmp_path)["ties"] == ties
    listed = "captions of several videos 2, tied captions 3, videos of the same embedding 2"
    assert f"warning: didemo has ties or duplicates: {listed}\n" in capsys.readouterr().err


def test_nothing_is_said_where_there_are_none(checkpoint, tmp_path, capsys):
    layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    assert recognition.main(arguments(tmp_path, checkpoint, dataset="hmdb51")) == 0
    assert results(tmp_path)["ties"] == {} and "duplicates" not in capsys.readouterr().err


def test_classes_and_options_that_are_the_same(checkpoint, tmp_path, capsys):
    layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    classes = tmp_path / "meta/hmdb51/prompt/label2id.json"
    long = "a very long name " * 40  # of which the model sees the beginning
    classes.write_text(json.dumps({f"{long}one": 0, f"{long}two": 1, "plays chess": 2}))
    for path in (tmp_path / "meta").rglob("*.tsv"):
        path.write_text(path.read_text().replace("jumps", "a").replace("swims", "b"))
    for old, new in (("jumps", "a"), ("swims", "b")):
        (tmp_path / "data" / old).rename(tmp_path / "data" / new)
    assert recognition.main(arguments(tmp_path, checkpoint, dataset="hmdb51")) == 0
    assert results(tmp_path)["ties"] == {"tied videos": 4, "classes of the same embedding": 2}
    layouts.ssv2(tmp_path / "data", tmp_path / "meta")
    lines = (tmp_path / "meta/ssv2/mc/val.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["options"] = [first["options"][0]] * 2 + first["options"][2:]
    (tmp_path / "meta/ssv2/mc/val.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    assert multiple_choice.main(arguments(tmp_path, checkpoint, dataset="ssv2_mc")) == 0
    assert results(tmp_path)["ties"] == {"tied videos": 1}
    assert "tied videos 1" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize("protocol", ["retrieval", "recognition", "multiple_choice", "linear_probe"])
def test_batches_and_workers_move_no_figure(protocol, checkpoint, tmp_path):
    """Nor do processes: see test_processes.py."""
    main, dataset, lay_out = {
        "retrieval": (retrieval.main, "msrvtt", layouts.msrvtt),
        "recognition": (
            test_entry.main, "ucf101", lambda *where: layouts.recognition("ucf101", *where),
        ),
        "multiple_choice": (multiple_choice.main, "ssv2_mc", layouts.ssv2),
        "linear_probe": (linear_probe.main, "hmdb51", layouts.probe_lists),
    }[protocol]  # fmt: skip
    lay_out(tmp_path / "data", tmp_path / "meta")
    given = arguments(tmp_path, checkpoint, dataset=dataset)
    for out, batch, workers in (("a", 48, 0), ("b", 1, 0), ("c", 5, 2)):
        own = ["--output", str(tmp_path / out), "--batch-size", str(batch), "--num-workers", str(workers)]
        assert main([*given, *own]) == 0
    same_results(tmp_path / "a", tmp_path / "b")
    same_results(tmp_path / "a", tmp_path / "c")
