"""The benchmarks of data in a tiny form: they run on generated videos, and their figures fit together."""

import json

import pytest

from benchmarks import data_loading, end_to_end, feature_extraction, videos
from data_loader.video.packets import open_container, scan_packets

TINY = ["--sizes", "340x256", "--videos", "2", "--seconds", "3", "4"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture
def run(cache, tmp_path):
    """Run a benchmark on tiny videos; returns what it wrote."""

    def run(benchmark, *arguments: str) -> dict:
        file = tmp_path / "figures.json"
        assert benchmark.main([*TINY, "--cache", str(cache), *arguments, "--json", str(file)]) == 0
        return json.loads(file.read_text())

    return run


def test_generated_videos_are_of_the_size_and_length_asked_for_with_sound(cache):
    paths = videos.make_videos(cache, "340x256", 2, (3, 4))
    for path, frames in zip(paths, (75, 100), strict=True):
        with open_container(str(path)) as (container, stream):
            assert (stream.width, stream.height) == (340, 256)
            assert len(container.streams.audio) == 1
        assert scan_packets(str(path)).count == frames
    written = [path.stat().st_mtime_ns for path in paths]
    assert videos.make_videos(cache, "340x256", 2, (3, 4)) == paths
    assert [path.stat().st_mtime_ns for path in paths] == written
    with pytest.raises(ValueError, match="unknown size '8k'; there are 340x256, 720p"):
        videos.make_videos(cache, "8k", 1)


def test_data_loading(run, capsys):
    limits = ["--clips", "3", "--workers", "1", "--batch-size", "2", "--duration", "0"]
    figures = run(data_loading, *limits, "--readers", "pyav", "--gpu-rate", "B/16=450")
    stages, loaders = figures["tables"].values()
    names = ["340x256, pyav", "340x256 prepared, pyav"]
    assert [row["name"] for row in stages] == [row["name"] for row in loaders] == names
    for row in stages:
        spent = row["decode ms"] + row["transform ms"] + row["collate ms"]
        assert row["clips/core s"] == pytest.approx(1e3 / spent)
    assert all(row["cores for B/16"] == pytest.approx(450 / row["clips/core s"]) for row in loaders)
    assert figures["machine"]["cores"] >= 1 and "commit" in figures["machine"]
    assert "340x256 prepared, pyav" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu-rate", "450"], "write NAME=CLIPS_A_SECOND"),
        (["--data", "/nowhere/*.mp4"], "/nowhere"),
    ],
)
def test_mistakes_end_with_their_message(arguments, message, capsys):
    with pytest.raises(SystemExit):
        data_loading.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.heavy
def test_feature_extraction(run):
    options = ["--arch", "TVTSv2_Demo", "--precision", "fp32", "--device", "cpu", "--workers", "1"]
    figures = run(feature_extraction, *options, "--count", "3", "--no-raw")
    [row] = figures["tables"]["files to vectors"]
    assert row["name"] == "340x256 prepared"
    whole, start = row["whole command, s"], row["of one video, s"]
    assert start > 0
    assert row["videos/s"] == feature_extraction.rate(3, start, whole)
    assert row["MiB a process"] > 0 and row["in the second half"] > 0


def test_rate_of_the_videos_behind_the_first():
    assert feature_extraction.rate(101, start=4, whole=9) == 20
    assert feature_extraction.rate(3, start=4, whole=3.9) is None


@pytest.mark.heavy
def test_end_to_end(run):
    options = ["--arch", "TVTSv2_Demo", "--device", "cpu", "--workers", "1", "--batch-size", "2"]
    steps = ["--warm-up", "2", "--steps", "4", "--raw-steps", "2", "--log-every", "0"]
    steps += ["--set", "trainer.threads=1"]
    [rows] = run(end_to_end, *options, *steps, "--no-prepared")["tables"].values()
    alone, whole = rows
    assert [alone["name"], whole["name"]] == ["steps alone", "340x256"]
    assert whole["of the steps alone, %"] == pytest.approx(100 * whole["clips/s"] / alone["clips/s"])


@pytest.mark.heavy
def test_end_to_end_says_that_the_training_failed(tmp_path):
    run = end_to_end.Run("340x256", ["trainer.device=cpu", "data.reader=none"], tmp_path)
    with pytest.raises(RuntimeError, match="the training ended with status 1; its messages"):
        next(end_to_end.results("configs/demo.json", [run]))


def test_rates_leave_the_warm_up_out(tmp_path):
    rows = [
        {"kind": "step", "step": 1, "loss": 3.0},
        {"kind": "step", "step": 2, "clips_per_s": 1.0, "data_wait": 0.9},
        {"kind": "step", "step": 3, "loss": 3.0},
        {"kind": "step", "step": 4, "clips_per_s": 20.0, "data_wait": 0.5},
        {"kind": "step", "step": 5, "clips_per_s": 10.0, "data_wait": 0.0},
        {"kind": "validation", "step": 5, "loss": 1.0},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = end_to_end.rate(path, batch_size=10, warm_up=2)  # 20 clips in 1 s, 10 clips in 1 s
    assert figures == {"clips/s": pytest.approx(15), "data wait, %": pytest.approx(25)}
    with pytest.raises(ValueError, match="raise --steps"):
        end_to_end.rate(path, batch_size=10, warm_up=5)
