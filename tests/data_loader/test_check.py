import json

import pytest

from data_loader.check import config_entries, main
from tests.data_loader import worlds
from utils.config import REPOSITORY

EVALUATION = {"task": "retrieval", "name": "mine"}


@pytest.fixture
def webvid(tmp_path):
    return worlds.webvid(tmp_path)


def check(config, tmp_path) -> tuple[int, list[list[str]]]:
    output = tmp_path / "unreadable.tsv"
    status = main([str(config), "--output", str(output), "--workers", "2"])
    lines = output.read_text().splitlines() if output.exists() else []
    return status, [line.split("\t") for line in lines]


def training_config(folder):
    entry = {"type": "webvid", "root": str(folder / "data")}
    data = {"train": [entry], "val": [entry], "meta": str(folder / "meta_data")}
    return worlds.put_json(folder / "config.json", {"data": data})


def test_lists_what_cannot_be_read(webvid, tmp_path):
    broken = worlds.break_file(webvid / "data/train/001/3.mp4")
    (webvid / "data/val/000/2.mp4").unlink()
    status, (header, *lines) = check(training_config(webvid), tmp_path)
    assert status == 1
    assert header == ["type", "split", "path", "reason"]
    assert [line[:3] for line in lines] == [
        ["webvid", "train", str(broken)],
        ["webvid", "val", str(webvid / "data/val/000/2.mp4")],
    ]
    assert lines[1][3] == "no such file"


def test_nothing_to_complain_about(webvid, tmp_path, capsys):
    status, lines = check(training_config(webvid), tmp_path)
    assert (status, lines) == (0, [])
    assert capsys.readouterr().out == "0 unreadable videos\n"


def test_a_list_of_before_is_brought_up_to_date(webvid, tmp_path, capsys):
    video = webvid / "data/train/001/3.mp4"
    whole = video.read_bytes()
    worlds.break_file(video)
    assert check(training_config(webvid), tmp_path)[0] == 1
    assert f"1 unreadable video, listed in {tmp_path / 'unreadable.tsv'}" in capsys.readouterr().out
    video.write_bytes(whole)
    status, lines = check(training_config(webvid), tmp_path)
    assert (status, len(lines)) == (0, 1)
    assert "0 unreadable videos; " in capsys.readouterr().out


def test_as_many_workers_as_cores(monkeypatch, capsys):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "processes that read (default: 1)" in " ".join(capsys.readouterr().out.split())


def test_an_evaluation_config(tmp_path):
    worlds.msrvtt(tmp_path)
    worlds.break_file(tmp_path / "data/videos/all/video0.mp4")
    config = {
        **EVALUATION,
        "meta": str(tmp_path / "meta_data"),
        "data": {"type": "msrvtt", "root": str(tmp_path / "data"), "cut": "jsfusion"},
    }
    status, lines = check(worlds.put_json(tmp_path / "config.json", config), tmp_path)
    assert status == 1
    assert lines[1][:2] == ["msrvtt", "test"]


def test_what_a_config_leaves_out_is_what_training_takes_for_it(tmp_path):
    """Wherever the config lies."""
    config = worlds.put_json(tmp_path / "own.json", {"name": "own", "data": {"meta": "m", "batch_size": 4}})
    entries = list(config_entries(config))
    assert [(entry["type"], entry["split"]) for entry in entries] == [
        ("yttemporal", "train"),
        ("webvid", "train"),
        ("yttemporal", "val"),
        ("webvid", "val"),
    ]
    assert {entry["meta"].name for entry in entries} == {"m"}
    assert {entry["timeout"] for entry in entries} == {300}


def test_a_name_with_a_line_break_keeps_its_row_whole(tmp_path):
    name = "two\nlines.mp4"
    worlds.put_json(tmp_path / "meta/ssv2/mc/val.jsonl", {"clip_name": name, "options": ["a"], "answer": 0})
    worlds.break_file(worlds.put_video(tmp_path / "data/videos" / name))
    data = {"type": "ssv2", "root": str(tmp_path / "data")}
    config = {"task": "multiple_choice", "name": "mine", "meta": str(tmp_path / "meta"), "data": data}
    status, rows = check(worlds.put_json(tmp_path / "config.json", config), tmp_path)
    assert (status, [len(row) for row in rows]) == (1, [4, 4])
    assert json.loads(rows[1][2]) == str(tmp_path / "data/videos" / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": {"train": [{"type": "webvid"}]}}, "'data.train.0.root' is missing"),
        ({"data": {"batch_sise": 3}}, "did you mean 'batch_size'"),
        ({**EVALUATION, "data": {"type": "webvid", "root": "/nowhere"}}, "/nowhere is missing"),
        ({**EVALUATION, "data": {"type": "webvid", "root": "/tmp", "cut": "x"}}, "data set 'webvid'"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path, capsys, content, message):
    status, lines = check(worlds.put_json(tmp_path / "config.json", content), tmp_path)
    assert (status, lines) == (2, [])
    assert message in capsys.readouterr().err


def test_the_repositorys_own_configs_are_understood():
    for path in [*REPOSITORY.glob("configs/*.json"), *REPOSITORY.glob("downstream/configs/*.json")]:
        assert list(config_entries(path))
