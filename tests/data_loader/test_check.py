import pytest

from data_loader.check import config_entries, main
from tests.data_loader import worlds


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
    assert f"1 unreadable videos, listed in {tmp_path / 'unreadable.tsv'}" in capsys.readouterr().out
    video.write_bytes(whole)
    status, lines = check(training_config(webvid), tmp_path)
    assert (status, len(lines)) == (0, 1)


def test_as_many_workers_as_cores(monkeypatch, capsys):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "processes that read (3)" in " ".join(capsys.readouterr().out.split())


def test_an_evaluation_config(tmp_path):
    worlds.msrvtt(tmp_path)
    worlds.break_file(tmp_path / "data/videos/all/video0.mp4")
    config = {
        "task": "retrieval",
        "meta": str(tmp_path / "meta_data"),
        "data": {"type": "msrvtt", "root": str(tmp_path / "data"), "cut": "jsfusion"},
    }
    status, lines = check(worlds.put_json(tmp_path / "config.json", config), tmp_path)
    assert status == 1
    assert lines[1][:2] == ["msrvtt", "test"]


def test_defaults_stand_beside_the_config(tmp_path):
    base = {"data": {"train": [{"type": "webvid", "root": "x"}], "meta": "m", "batch_size": 3}}
    worlds.put_json(tmp_path / "base.json", base)
    config = worlds.put_json(tmp_path / "own.json", {"name": "own", "data": {"batch_size": 4}})
    [entry] = config_entries(config)
    assert (entry["type"], entry["split"], entry["root"].name, entry["meta"].name) == (
        "webvid",
        "train",
        "x",
        "m",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, 'has no "data" with "train" and "val"'),
        ({"data": {"train": [{"type": "webvid"}]}}, 'needs "type" and "root"'),
        ({"data": {"type": "webvid", "root": "/nowhere"}}, "/nowhere is missing"),
        ({"data": {"type": "webvid", "root": "/tmp", "cut": "x"}}, "data set 'webvid'"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path, capsys, content, message):
    status, lines = check(worlds.put_json(tmp_path / "config.json", content), tmp_path)
    assert (status, lines) == (2, [])
    assert message in capsys.readouterr().err


def test_the_repositorys_own_configs_are_understood():
    from data_loader.check import REPOSITORY

    for path in [*REPOSITORY.glob("configs/*.json"), *REPOSITORY.glob("downstream/configs/*.json")]:
        if path.name != "base.json":
            assert list(config_entries(path))
