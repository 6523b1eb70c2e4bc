"""The table of many runs: real evaluations, and results.json made by hand."""

import csv
import io
import json
import shlex
from pathlib import Path

import pytest

import test as test_entry
from downstream import linear_probe, retrieval
from downstream.report.runs import find_results, read_runs
from downstream.table import as_csv, as_markdown, main, sections

from . import layouts
from .browser import document, elements, needs_chromium, outside
from .test_commands import arguments

SHA = "0123456789abcdef" * 4


def results(**changes) -> dict:
    """The results.json of a retrieval on MSR-VTT with a released model."""
    row = {"R1": 34.4, "R5": 58.0, "R10": 67.0, "R50": 80.0, "MedR": 4.0, "MeanR": 9.0}
    return {
        "task": "retrieval",
        "dataset": "msrvtt",
        "arch": "TVTSv2_B_16",
        "command": "python test.py --dataset msrvtt",
        "metrics": {
            "text to video": {"plain": row, "dsl": row | {"R1": 36.6}},
            "video to text": {"plain": row | {"R1": 33.3}, "dsl": row | {"R1": 35.5}},
        },
        "published": {
            "plain": {"R1": 35.9, "R5": 61.2, "R10": 71.3, "MedR": 3.0},
            "dsl": {"R1": 37.8, "R5": 62.9, "R10": 72.4, "MedR": 3.0},
        },
        "counts": {"videos": 1000, "captions": 1000},
        "failed_files": [],
        "checkpoint": {"path": "/models/TVTSv2_ViT_B_16.pth", "sha256": SHA},
        "config": {
            "task": "retrieval",
            "name": "msrvtt",
            "data": {"type": "msrvtt", "root": "/disk/msrvtt", "cut": "jsfusion", "fold": None},
            "num_frames": 12,
            "batch_size": 7,
            "dsl_temperature": 0.01,
        },
    } | changes


def with_config(**changes) -> dict:
    return results(config=results()["config"] | changes)


def write(folder: Path, **runs: dict) -> list[Path]:
    files = []
    for name, run in runs.items():
        (folder / name).mkdir(parents=True)
        files.append(folder / name / "results.json")
        files[-1].write_text(json.dumps(run))
    return files


def tables(folder: Path) -> dict[str, dict[str, list[str]]]:
    """{title: {row: cells}} of the Markdown of all runs below a folder."""
    runs, failed = read_runs(find_results([str(folder)]))
    found: dict[str, dict[str, list[str]]] = {}
    for line in as_markdown(runs, failed).splitlines():
        if line.startswith("## "):
            rows = found[line.removeprefix("## ")] = {}
        elif line.startswith("| "):
            title, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            rows[title] = cells
    return found


def test_plain_and_dsl_and_published_are_never_in_one_row(tmp_path):
    intervals = {"text to video": {"plain": {"R1": [31.5, 37.4], "R5": [55.0, 61.1]}}}
    write(tmp_path, a=results(intervals=intervals))
    found = tables(tmp_path)
    plain = found["retrieval, text to video: R@1 / R@5 / R@10 / MdR"]
    assert plain == {
        "": ["msrvtt"],
        "TVTSv2_B_16, published": ["35.9 / 61.2 / 71.3 / 3.0"],
        "TVTSv2_B_16": ["[34.4 / 58.0 / 67.0 / 4.0](#run-1)<br>(31.5–37.4 / 55.0–61.1 / – / –)"],
    }
    dsl = found["retrieval, text to video, dual softmax (DSL): R@1 / R@5 / R@10 / MdR"]
    assert dsl["TVTSv2_B_16, published"] == ["37.8 / 62.9 / 72.4 / 3.0"]
    assert dsl["TVTSv2_B_16"] == ["[36.6 / 58.0 / 67.0 / 4.0](#run-1)"]
    backwards = found["retrieval, video to text: R@1 / R@5 / R@10 / MdR"]
    assert set(backwards) == {"", "TVTSv2_B_16"}  # the paper has none
    assert list(found)[:2] == [title for title in found if "text to video" in title]


def test_models_by_data_sets(tmp_path):
    small = results(arch="TVTSv2_B_32", published={})
    other = results(dataset="didemo", config={"name": "didemo", "data": {"type": "didemo"}, "num_frames": 12})
    cut = with_config(data={"type": "msrvtt", "cut": "full-test"})
    write(tmp_path, a=results(), b=small, c=other, d=cut | {"published": {}})
    plain = tables(tmp_path)["retrieval, text to video: R@1 / R@5 / R@10 / MdR"]
    assert plain[""] == ["didemo", "msrvtt", "msrvtt (cut=full-test)"]
    assert [cell[-8:] for cell in plain["TVTSv2_B_16"]] == ["(#run-3)", "(#run-1)", "(#run-4)"]
    assert plain["TVTSv2_B_32"][0] == plain["TVTSv2_B_32"][2] == "–"
    assert list(plain) == ["", "TVTSv2_B_16, published", "TVTSv2_B_16", "TVTSv2_B_32"]


def test_other_settings_and_other_weights_are_rows_of_their_own(tmp_path):
    write(
        tmp_path,
        a=results(),
        b=with_config(sliding_window_stride=4, dsl_temperature=0.05, probe={"draws": 5, "shots": [4, 2]}),
        c=results(checkpoint={"path": "mine.pth", "sha256": "f" * 64}),
    )
    found = tables(tmp_path)
    first = f"TVTSv2_B_16, TVTSv2_ViT_B_16.pth, SHA-256 {SHA[:8]}"
    plain = found["retrieval, text to video: R@1 / R@5 / R@10 / MdR"]
    own = "sliding_window_stride=4, probe.shots=[4, 2]"
    mine = "TVTSv2_B_16, mine.pth, SHA-256 ffffffff"
    assert list(plain)[2:] == [first, f"{first}, {own}", mine]
    dsl = found["retrieval, text to video, dual softmax (DSL): R@1 / R@5 / R@10 / MdR"]
    assert f"{first}, {own}, dsl_temperature=0.05" in dsl


def test_own_data_of_one_name_in_two_places_are_two_sets(tmp_path):
    own = {"type": "labels", "root": "/disk/videos"}
    prompts = ["a video of {}"]  # those of labels.json, which all own labels begin with
    runs = {
        name: with_config(data=own | {"root": root}, prompts=prompts) | {"dataset": dataset}
        for name, root, dataset in (
            ("a", "/a/videos", "videos"),
            ("b", "/b/videos", "videos"),
            ("c", "/c/others", "others"),
        )
    }
    write(tmp_path, **runs)
    found, _ = read_runs(find_results([str(tmp_path)]))
    assert [run.column for run in found] == [
        "videos (root=/a/videos)", "videos (root=/b/videos)", "others",
    ]  # fmt: skip
    assert {run.settings for run in found} == {""}


def test_a_figure_has_one_table_wherever_its_runs_have_it(tmp_path):
    ks = {k: {f"accuracy, k = {k}": {"plain": {"top1": float(k), "top5": 99.0}}} for k in (10, 20)}
    of_knn = results(task="knn", published={})
    write(tmp_path, a=of_knn | {"metrics": ks[20] | ks[10]}, b=of_knn | {"metrics": ks[10] | ks[20]})
    found = sections(read_runs(find_results([str(tmp_path)]))[0])
    assert [section.title for section in found] == [
        f"knn, accuracy, k = {k}: top-1 / top-5" for k in (10, 20)
    ]
    for section in found:
        ((_, ((*figures,),)),) = section.rows
        assert [each.number for each in figures] == [1, 2]


def test_two_runs_of_a_cell_both_stand_in_it(tmp_path):
    again = results()
    again["metrics"] = {"text to video": {"plain": results()["metrics"]["video to text"]["plain"]}}
    write(tmp_path, a=results(), b=again, c=results(failed_files=[{"path": "x.mp4", "reason": "empty"}]))
    cells = tables(tmp_path)["retrieval, text to video: R@1 / R@5 / R@10 / MdR"]
    assert cells["TVTSv2_B_16"] == [
        "[34.4 / 58.0 / 67.0 / 4.0](#run-1)<br>[33.3 / 58.0 / 67.0 / 4.0](#run-2)"
        "<br>[34.4 / 58.0 / 67.0 / 4.0\\*](#run-3)"
    ]
    assert cells["TVTSv2_B_16, published"] == ["35.9 / 61.2 / 71.3 / 3.0"]
    runs, _ = read_runs(find_results([str(tmp_path)]))
    text = as_markdown(runs, {})
    assert "WITHOUT 1 video that cannot be read" in text and "without videos that cannot be read" in text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not JSON"),
        (json.dumps(results()).encode()[:-20], "is not JSON"),
        (b"[1, 2]", "is no result of an evaluation"),
        (b'{"accuracy": 0.9}', "is no result of an evaluation: 'task' is missing"),
        (json.dumps(results(metrics={})).encode(), "it has no plain metrics"),
        (json.dumps(results(metrics={"a": {"dsl": {"R1": 1}}})).encode(), "it has no plain metrics"),
        (json.dumps(results(metrics={"a": {"plain": {"R1": "x"}}})).encode(), "metrics.a.plain.R1 is"),
        (json.dumps(results(metrics={"a": {"plain": {"R1": float("nan")}}})).encode(), "metrics.a.plain.R1"),
        (json.dumps(results(checkpoint={"path": "x"})).encode(), "which checkpoint"),
        (json.dumps(with_config(data="x")).encode(), "its config is none"),
        (json.dumps(with_config(dsl_temperature="x")).encode(), "its config is none"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_what_is_no_result_is_named(content, why, tmp_path, capsys):
    good, bad = write(tmp_path, a=results(), b={})
    bad.write_bytes(content)
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr()
    warning = next(line for line in said.err.splitlines() if line.startswith("warning: not in the table"))
    assert str(bad) in warning and why in warning and warning.count(str(bad)) == 1
    assert f"- `{bad}` " in said.out and f"`{good}`" in said.out and why in said.out


def test_no_results_at_all(tmp_path, capsys):
    for place, message in (
        (tmp_path, "no results.json in"),
        (tmp_path / "none", "there is no folder or file"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(place)])
        assert stop.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--output", "table.txt"])
    assert "its name must end in .md, .csv, .html" in capsys.readouterr().err


def test_a_command_is_shown_as_it_is(tmp_path):
    write(
        tmp_path, a=results(command="python test.py --set 'prompts=[\"a | `{}`\"]'"), b=results(command="x")
    )
    runs, _ = read_runs(find_results([str(tmp_path)]))
    lines = as_markdown(runs, {}).splitlines()
    assert "`` python test.py --set 'prompts=[\"a | `{}`\"]' ``" in "\n".join(lines)
    rows = list(csv.DictReader(io.StringIO(as_csv(runs))))
    assert len(rows) == 8 and rows[0]["command"] == runs[0].results.command
    assert (rows[0]["kind"], rows[0]["R1"], rows[0]["published_R1"], rows[0]["R50"]) == (
        "plain", "34.4", "35.9", "80.0",
    )  # fmt: skip
    assert rows[3]["direction"] == "video to text" and rows[3]["published_R1"] == ""


@needs_chromium
def test_the_page_of_real_runs(checkpoint, tmp_path, capsys):
    """Each cell leads to its command, which is the one that was called."""
    given = {}
    for main_of, dataset, make in (
        (retrieval.main, "msrvtt", layouts.msrvtt),
        (test_entry.main, "ssv2_mc", layouts.ssv2),
        (linear_probe.main, "hmdb51", layouts.probe_lists),
    ):
        folder = tmp_path / dataset
        make(folder / "data", folder / "meta")
        given[dataset] = arguments(folder, checkpoint, dataset=dataset)
        assert main_of(given[dataset]) == 0
    page = tmp_path / "table.html"
    said = capsys.readouterr().out.splitlines()
    files = [line.removeprefix("results: ") for line in said if line.startswith("results: ")]
    assert len(files) == 3 and all(Path(file).is_file() for file in files)
    assert main([str(tmp_path), "--output", str(page)]) == 0
    assert capsys.readouterr().out == f"3 runs in {page}\n"
    seen = document(page, tmp_path / "profile")
    assert all(target.startswith("#run-") for target in outside(seen))
    assert "<h2>linear probe, accuracy: top-1 / top-5</h2>" in seen
    commands = elements(seen, "item")
    scripts = {
        "msrvtt": "downstream/retrieval.py",
        "ssv2_mc": "test.py",
        "hmdb51": "downstream/linear_probe.py",
    }
    for dataset, script in scripts.items():
        expected = " ".join(shlex.join(["python", script, *given[dataset]]).split())
        assert sum(expected in command for command in commands) == 1
    runs, failed = read_runs(find_results([str(tmp_path)]))
    assert failed == {} and len(runs) == 3
    assert [section.title.partition(":")[0] for section in sections(runs)][-3:] == [
        "multiple choice, accuracy", "linear probe, accuracy", "linear probe, mean of classes",
    ]  # fmt: skip
    for run in runs:
        value = next(iter(run.results.metrics.values()))["plain"]
        shown = f'<a href="#run-{run.number}">{next(iter(value.values())):.1f} / '
        assert shown in seen
        assert run.settings == "" and run.column == run.results.dataset
