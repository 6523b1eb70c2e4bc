"""What the evaluation commands say and do when something is missing, broken, unchanged or mistaken."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_entry
from data_loader.transforms import clip_transform
from data_loader.video import read_clip
from downstream import linear_probe, multiple_choice, recognition, retrieval
from downstream.commands import run_all
from downstream.embedding.embedder import Embedder
from downstream.embedding.encoder import find_checkpoint
from downstream.feature_files import load_features
from downstream.options import default_workers
from model import create_model
from utils.config import REPOSITORY

from . import layouts
from .launch import launch


@pytest.fixture
def world(tmp_path):
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    return tmp_path


def arguments(world: Path, checkpoint: Path, *more: str, dataset: str = "msrvtt") -> list[str]:
    given = ["--dataset", dataset, "--set", f"data.root={world / 'data'}", "--set", f"meta={world / 'meta'}"]
    given += ["--arch", "TVTSv2_Demo", "-r", str(checkpoint), "--output", str(world / "out"), "-d", "cpu"]
    return [*given, "--num-workers", "0", *more]


def results(world: Path, out: str = "out") -> dict:
    return json.loads((world / out / "results.json").read_text())


@pytest.fixture
def count_videos(monkeypatch):
    """How many clips each forward pass was given."""
    batches, encode = [], Embedder.encode_clips

    def counted(self, video, valid_frames):
        batches.append(len(video))
        return encode(self, video, valid_frames)

    monkeypatch.setattr(Embedder, "encode_clips", counted)
    return batches


def test_a_second_call_uses_the_embeddings_again(world, checkpoint, count_videos):
    assert retrieval.main(arguments(world, checkpoint)) == 0
    first = results(world)
    assert sum(count_videos) == 5
    assert retrieval.main(arguments(world, checkpoint)) == 0
    assert sum(count_videos) == 5
    assert results(world)["metrics"] == first["metrics"]


STOPPED = """
import os, signal, sys
from downstream import retrieval
from downstream.embedding import resumable_table
from downstream.embedding.resumable_table import ResumableTable

resumable_table.SAVE_EVERY_S = 0
add = ResumableTable.add
def add_and_stop(self, rows):
    add(self, rows)
    os.kill(os.getpid(), signal.SIGNAL)
ResumableTable.add = add_and_stop
sys.exit(retrieval.main(sys.argv[1:]))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_an_evaluation_that_is_stopped_half_way_goes_on(stop, world, checkpoint, count_videos):
    """It stops when two of the five videos are embedded."""
    given = arguments(world, checkpoint)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    script = STOPPED.replace("SIGNAL", stop.name)
    stopped = subprocess.run(
        [sys.executable, "-c", script, *given], env=environment, capture_output=True, text=True, timeout=300
    )
    kept = world / "out/video_embeddings.safetensors"
    if stop == signal.SIGINT:
        assert stopped.returncode == 130 and "Traceback" not in stopped.stderr
        said = f"interrupted: 2 of 5 vectors are kept in {kept}.parts; the same command goes on from there"
        assert said in stopped.stderr.splitlines()
    else:
        assert stopped.returncode == -stop
    assert not kept.exists() and not (world / "out/results.json").exists()
    assert retrieval.main(given) == 0
    assert sum(count_videos) == 3
    resumed = results(world)
    whole = [str(world / "whole") if word == str(world / "out") else word for word in given]
    assert retrieval.main(whole) == 0
    assert resumed["metrics"] == results(world, "whole")["metrics"]
    assert not Path(f"{kept}.parts").exists()


def test_a_moved_data_folder_is_not_embedded_again(world, checkpoint, count_videos):
    retrieval.main(arguments(world, checkpoint))
    before = results(world)
    (world / "data").rename(world / "elsewhere")
    given = [
        word.replace(f"{world / 'data'}", f"{world / 'elsewhere'}") for word in arguments(world, checkpoint)
    ]
    assert retrieval.main(given) == 0
    assert sum(count_videos) == 5 and results(world)["metrics"] == before["metrics"]


def test_a_model_of_other_frames_is_evaluated_with_these(world, tmp_path, capsys):
    torch.manual_seed(0)
    model = create_model("TVTSv2_Demo", sort_head=False, num_frames=5).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "five.pth")
    assert retrieval.main(arguments(world, tmp_path / "five.pth")) == 0
    assert results(world)["config"]["num_frames"] == 5
    table = load_features(world / "out/video_embeddings.safetensors")
    frames, _, _ = read_clip(table.columns["path"][3], 5)
    with torch.no_grad():
        expected = model.encode_video(clip_transform("test", model.image_size)(frames)[None])[0][0]
    np.testing.assert_allclose(table.features[3], expected, atol=2e-5)
    assert retrieval.main(arguments(world, tmp_path / "five.pth", "--set", "num_frames=3")) == 0
    assert results(world)["config"]["num_frames"] == 3
    with pytest.raises(SystemExit):
        retrieval.main(arguments(world, tmp_path / "five.pth", "--set", "num_frames=12"))
    assert "num_frames is 12" in capsys.readouterr().err


def test_only_what_changed_is_embedded_again(world, checkpoint, count_videos):
    retrieval.main(arguments(world, checkpoint))
    layouts.write_video(world / "data/videos/all/video2.mp4", seed=99, frames=30)
    retrieval.main(arguments(world, checkpoint))
    assert count_videos == [5, 1]
    retrieval.main(arguments(world, checkpoint, "--reader", "decord"))
    retrieval.main(arguments(world, checkpoint, "-s", "1"))
    assert sum(count_videos[2:]) >= 10


def test_another_checkpoint_is_embedded_anew(world, checkpoint, count_videos, tmp_path):
    retrieval.main(arguments(world, checkpoint))
    torch.manual_seed(1)
    other = tmp_path / "other.pth"
    torch.save({"state_dict": create_model("TVTSv2_Demo", sort_head=False).state_dict()}, other)
    before = results(world)
    retrieval.main(arguments(world, other))
    assert count_videos == [5, 5]
    assert results(world)["checkpoint"]["sha256"] != before["checkpoint"]["sha256"]


def test_an_embeddings_file_cut_short_is_made_anew(world, checkpoint, count_videos):
    retrieval.main(arguments(world, checkpoint))
    file = world / "out/video_embeddings.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    retrieval.main(arguments(world, checkpoint))
    assert count_videos == [5, 5]


def test_unreadable_videos_are_all_named_and_fail_the_run(world, checkpoint, capsys):
    (world / "data/videos/all/video1.mp4").write_bytes(b"")
    (world / "data/videos/all/video3.mp4").unlink()
    assert retrieval.main(arguments(world, checkpoint)) == 1
    errors = capsys.readouterr().err
    assert "2 of 5 videos cannot be read" in errors
    assert "video1.mp4" in errors and "video3.mp4" in errors and "--allow-missing" in errors
    assert not (world / "out/results.json").exists()
    named = json.loads((world / "out/failed_files.json").read_text())
    videos = world / "data/videos/all"
    assert [failure["path"] for failure in named] == [str(videos / f"video{i}.mp4") for i in (1, 3)]
    assert named[1]["reason"] == "no such file"
    for failure in named:  # the path once, not "path: path: reason"
        assert f"  {failure['path']}: {failure['reason']}\n" in errors
        assert errors.count(failure["path"]) == 1


def test_allow_missing_evaluates_the_rest_and_says_so(world, checkpoint, capsys, count_videos):
    (world / "data/videos/all/video1.mp4").write_bytes(b"")
    assert retrieval.main(arguments(world, checkpoint)) == 1
    assert retrieval.main(arguments(world, checkpoint, "--allow-missing")) == 0
    assert count_videos == [4]  # those that could be read were kept by the run that failed
    out = capsys.readouterr().out
    assert "4 videos, 4 captions" in out and "WITHOUT 1 video " in out
    found = results(world)
    assert found["counts"] == {"videos": 4, "captions": 4}
    assert [Path(failure["path"]).name for failure in found["failed_files"]] == ["video1.mp4"]
    assert "video1" not in [query["video"] for query in found["queries"]]


def test_nothing_readable_fails_even_with_allow_missing(world, checkpoint, capsys):
    for path in (world / "data/videos/all").iterdir():
        path.write_bytes(b"no video")
    assert retrieval.main(arguments(world, checkpoint, "--allow-missing")) == 1
    assert "5 of 5 videos cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("arch", ["TVTSv2_B_32", "TVTSv2_B_16", "TVTSv2_H_14"])
def test_missing_weights_say_where_they_go_and_come_from(arch):
    with pytest.raises(FileNotFoundError) as error:
        find_checkpoint("/nowhere/weights.pth", arch)
    message = str(error.value)
    assert "/nowhere/weights.pth" in message
    assert f"fetch them with: python -m model.download {arch}\n" in message
    assert str(REPOSITORY / f"{arch.replace('TVTSv2_', 'TVTSv2_ViT_')}.pth") in message


def test_a_folder_saved_as_pretrained_is_a_checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert find_checkpoint(str(tmp_path), "TVTSv2_Demo") == tmp_path / "model.safetensors"


def test_a_distributed_checkpoint_gives_what_its_file_gives(world, checkpoint, sharded, count_videos):
    assert retrieval.main(arguments(world, checkpoint)) == 0
    first = results(world)
    assert retrieval.main(arguments(world, sharded)) == 0
    assert count_videos == [5, 5]  # it has a hash of its own
    assert results(world)["queries"] == first["queries"]
    hashed = subprocess.run(
        "sha256sum * | sha256sum", shell=True, cwd=sharded, capture_output=True, text=True, check=True
    )
    assert results(world)["checkpoint"] == {"path": str(sharded), "sha256": hashed.stdout.split()[0]}


def test_a_distributed_checkpoint_cut_short_is_refused(world, sharded, tmp_path, capsys):
    copy = Path(shutil.copytree(sharded, tmp_path / "copy.dcp"))
    shard = next(copy.glob("shard-*"))
    os.truncate(shard, 100)
    message = failing(retrieval.main, arguments(world, copy), capsys)
    assert f"{shard.name} missing or cut short" in message and str(copy) in message


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    world, checkpoint, capsys, count_videos, blocked, option
):
    given = arguments(world, checkpoint, option, str(blocked))
    assert f"could not write {blocked}: Not a directory" in failing(retrieval.main, given, capsys)
    assert count_videos == []


@pytest.mark.parametrize("file", ["out/results.json", "pages/retrieval_msrvtt.html"])
def test_figures_are_shown_before_what_cannot_be_written(world, checkpoint, capsys, file):
    (world / file).mkdir(parents=True)  # nothing can be renamed to that
    with pytest.raises(SystemExit) as stop:
        retrieval.main(arguments(world, checkpoint, "--report", str(world / "pages")))
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "text to video" in said.out and "R@1" in said.out
    assert f"error: could not write {world / file}: Is a directory" in said.err
    assert (world / "out/results.json").is_file() == (file != "out/results.json")


def test_embeddings_that_cannot_be_kept_are_no_loss(world, checkpoint, capsys):
    (world / "out/video_embeddings.safetensors").mkdir(parents=True)
    assert retrieval.main(arguments(world, checkpoint)) == 0
    assert f"warning: could not write {world / 'out/video_embeddings.safetensors'}" in capsys.readouterr().err
    assert results(world)["counts"]["videos"] == 5


def failing(main, given: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(given)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_missing_data_say_where_they_come_from(tmp_path, checkpoint, capsys):
    message = failing(retrieval.main, arguments(tmp_path, checkpoint), capsys)
    assert str(tmp_path / "data") in message and "https://github.com/TencentARC/TVTS" in message


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--set", "prompt=x"], "did you mean 'prompts'?"),
        (["--set", "data.cut=jsfuson"], "jsfuson"),
        (["--set", "data.cutt=x"], "cutt"),
        (["--set", "data.reader=pyav"], "unknown key 'data.reader'; it is a key of the config itself"),
        (["--set", "data.type=msrvt"], "did you mean 'msrvtt'?"),
        (["-s", "0"], "at least 1"),
        (["--set", 'prompts=["a person"]'], "where the class goes"),
        (["--set", "dsl_temperature=0.0001"], "a number from 0.003 on"),
        (["--set", "precision=fp16"], "one of fp32, bf16"),
        (["--config", "x.json"], "one of them"),
        (["--dataset", "msrvt"], "known: activitynet, captions, charades, demo_hmdb51"),
        (["--dataset", "hmdb51"], "the task of hmdb51 is recognition, this command's is retrieval"),
        (["--arch", "TVTSv2_B16"], "did you mean 'TVTSv2_B_16'?"),
    ],
)
def test_mistakes_are_explained(more, expected, world, checkpoint, capsys):
    assert expected in failing(retrieval.main, [*arguments(world, checkpoint), *more], capsys)


def test_windows_are_for_retrieval(tmp_path, checkpoint, capsys):
    layouts.ssv2(tmp_path / "data", tmp_path / "meta")
    given = arguments(tmp_path, checkpoint, "-s", "2", dataset="ssv2_mc")
    assert "retrieval and linear probes only" in failing(multiple_choice.main, given, capsys)


def test_a_task_that_its_data_are_not_for_is_refused_before_the_work(world, checkpoint, capsys, count_videos):
    layouts.recognition("hmdb51", world / "data", world / "meta")
    given = arguments(world, checkpoint, "--set", "data.type=hmdb51", dataset="didemo")
    said = failing(retrieval.main, given, capsys)
    assert "task and the type of its data do not go together" in said
    assert count_videos == []


def test_no_data_set_named(capsys):
    assert "--dataset NAME (activitynet, captions, charades, demo_" in failing(test_entry.main, [], capsys)


@pytest.fixture
def run_three(tmp_path, checkpoint):
    """--all for three data sets that are there, and one that is not."""
    layouts.msrvtt(tmp_path / "msrvtt", tmp_path / "meta")
    layouts.recognition("hmdb51", tmp_path / "hmdb51", tmp_path / "meta")
    layouts.ssv2(tmp_path / "SSV2", tmp_path / "meta")
    names = []
    for name, folder in (("msrvtt", "msrvtt"), ("lsmdc", "lsmdc"), ("hmdb51", "hmdb51"), ("ssv2_mc", "SSV2")):
        config = json.loads((REPOSITORY / f"downstream/configs/{name}.json").read_text())
        config["data"]["root"] = str(tmp_path / folder)
        (tmp_path / f"{name}.json").write_text(json.dumps(config | {"meta": str(tmp_path / "meta")}))
        names.append(str(tmp_path / name))
    given = ["--all", "--arch", "TVTSv2_Demo", "-r", str(checkpoint), "--num-workers", "0", "-d", "cpu"]
    given += ["--output", str(tmp_path / "results")]
    return lambda *more: run_all(test_entry.parse([*given, *more]), names, test_entry.PROTOCOLS)


def test_all_runs_what_is_there(run_three, tmp_path, capsys):
    assert run_three() == 0
    out = capsys.readouterr().out
    assert "lsmdc: left out" in out and "Table 2" in out and "Table 3" in out
    assert "msrvtt †" in out and "hmdb51" in out
    assert (tmp_path / "results/recognition/hmdb51/TVTSv2_Demo/results.json").exists()


def test_all_shows_what_it_found_whatever_else_fails(run_three, tmp_path, capsys):
    (tmp_path / "pages/retrieval_msrvtt.html").mkdir(parents=True)
    (tmp_path / "meta/ssv2/mc/val.jsonl").write_text("no list\n")
    assert run_three("--report", str(tmp_path / "pages")) == 1
    out = capsys.readouterr().out
    assert f"msrvtt: failed. could not write {tmp_path / 'pages/retrieval_msrvtt.html'}" in out
    assert "ssv2_mc: failed." in out and "val.jsonl" in out
    assert "msrvtt †" in out and "Table 3" in out
    assert (tmp_path / "pages/recognition_hmdb51.html").is_file()


def test_all_ends_where_the_model_gives_no_numbers(run_three, checkpoint, tmp_path, capsys):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    state["text_projection"].fill_(3e38)
    torch.save({"state_dict": state}, tmp_path / "large.pth")
    with pytest.raises(SystemExit) as stop:
        run_three("-r", str(tmp_path / "large.pth"))
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "error: the embedding of 'a dog runs' (and 4 of the other 4) holds NaN" in said
    assert "Traceback" not in said


def test_all_without_any_data_says_where_they_go(tmp_path, checkpoint, capsys):
    given = [
        "--all",
        "--arch",
        "TVTSv2_Demo",
        "-r",
        str(checkpoint),
        "-d",
        "cpu",
        "--set",
        f"meta={tmp_path}",
    ]
    given += ["--set", f"data.root={tmp_path / 'nowhere'}", "--output", str(tmp_path / "results")]
    assert test_entry.main(given) == 1
    *notes, last = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert last == "none of the data sets is there: docs/data-sets.md says where they go"
    assert [line.split(":")[0] for line in notes if "left out" in line] == list(test_entry.ALL_OF_DEMO)
    assert not (tmp_path / "results").exists()


def test_all_with_a_data_set_is_refused(capsys):
    assert "--all takes no" in failing(test_entry.main, ["--all", "--dataset", "msrvtt"], capsys)


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert default_workers() == 1


@pytest.mark.parametrize("module", [test_entry, retrieval, recognition, multiple_choice, linear_probe])
def test_help(module, capsys):
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--config",
        "--dataset",
        "--arch",
        "--checkpoint",
        "--sliding_window_stride",
        "--dsl",
        "--report",
        "example",
    ):
        assert option in shown


@pytest.mark.heavy
def test_as_a_module(world, checkpoint):
    done = launch(["-m", "downstream.retrieval", "--help"], cwd=REPOSITORY)
    assert done.returncode == 0 and "--dsl" in done.stdout
