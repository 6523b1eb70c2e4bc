"""The demo, run again over what an earlier run has left."""

import shutil
from pathlib import Path

import pytest
import torch

import test as test_entry
from data_loader.demo import generate
from downstream import demo, feature_extraction, linear_probe
from downstream.feature_files import load_features
from model import create_model
from tests.downstream.layouts import write_video
from trainer.checkpoint import save_atomically


def save_run(results: Path, seed: int = 0, data: str = "demo") -> None:
    """The checkpoint that a demo's run leaves, without the tensors."""
    results.mkdir()
    config = {"seed": seed, "data": {"meta": f"/anywhere/data/{data}/meta_data"}}
    state = dict.fromkeys(("state_dict", "optimizer", "scheduler", "loader", "epoch", "global_step"), 0)
    save_atomically({**state, "config": config}, results / "checkpoint-epoch1.pth")


def test_features_of_a_run_that_has_gone_on_are_made_anew(checkpoint, tmp_path):
    write_video(tmp_path / "data/msrvtt/videos/all/a.mp4", seed=0)
    results = tmp_path / "results"
    results.mkdir()
    made = demo.Demo(tmp_path / "data", results, seed=0, scale=1.0, overrides=())
    shutil.copy(checkpoint, results / "checkpoint-epoch1.pth")
    feature_extraction.main([*map(str, made.features()[1:]), "-d", "cpu"])
    first = load_features(results / "features.safetensors")
    torch.save({"state_dict": create_model("TVTSv2_Demo").state_dict()}, results / "checkpoint-epoch2.pth")
    feature_extraction.main([*map(str, made.features()[1:]), "-d", "cpu"])
    second = load_features(results / "features.safetensors")
    assert first.metadata["checkpoint_sha256"] != second.metadata["checkpoint_sha256"]


@pytest.mark.parametrize(
    ("there", "options", "message"),
    [
        ({"seed": 0}, ("--seed", "1"), "a run with seed 0, not 1: choose another --output, or delete"),
        ({"seed": 1}, (), "a run with seed 1, not 0"),
        ({"data": "demo"}, ("--scale", "0.05"), "a run with data demo, not demo-x0.05"),
    ],
)
def test_another_run_is_not_passed_off_as_this_one(tmp_path, capsys, monkeypatch, there, options, message):
    monkeypatch.setattr(demo, "run", lambda *words: pytest.fail(f"it ran {words}"))
    save_run(tmp_path / "mine", **there)
    with pytest.raises(SystemExit) as ended:
        demo.main([*options, "--output", str(tmp_path / "mine")])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in said and str(tmp_path / "mine") in said


def test_a_folder_of_other_data_is_not_emptied(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "USER_ROOT", tmp_path)
    other = tmp_path / "data" / "demo" / "mine.mp4"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(SystemExit) as ended:
        demo.main(["--output", str(tmp_path / "results")])
    assert ended.value.code == 2
    assert "holds something other than demo data; name another folder" in capsys.readouterr().err
    assert other.exists()


def test_the_same_run_goes_on(tmp_path):
    save_run(tmp_path / "mine", seed=1, data="demo-x0.05")
    data = tmp_path / "data" / "demo-x0.05"
    demo.Demo(data, tmp_path / "mine", seed=1, scale=0.05, overrides=()).check_results()
    demo.Demo(data, tmp_path / "new", seed=1, scale=0.05, overrides=()).check_results()


def test_commands_side_by_side_are_shown_one_after_the_other(tmp_path, capfd):
    late, early = tmp_path / "late.py", tmp_path / "early.py"
    late.write_text("import time; time.sleep(0.3); print('late')")
    early.write_text("import sys; print(sys.argv[1], file=sys.stderr)")
    demo.run_together([(late,), (early, "two words")])
    assert capfd.readouterr().out.split("\n$ ")[1:] == [
        f"python {late}\nlate\n",
        f"python {early} 'two words'\ntwo words\n",
    ]


def test_a_command_that_fails_ends_those_beside_it(tmp_path, capfd):
    fails, waits = tmp_path / "fails.py", tmp_path / "waits.py"
    fails.write_text("import sys; sys.exit('no such thing')")
    waits.write_text("import time; time.sleep(600)")
    with pytest.raises(SystemExit) as ended:
        demo.run_together([(fails,), (waits,)])
    assert ended.value.code == 1
    assert "no such thing" in capfd.readouterr().out


def test_its_model_can_be_tried_by_the_names_of_its_data(checkpoint, tmp_path, monkeypatch, capsys):
    """As `--dataset` names them, with no other option: from the folder that the data were made in."""
    monkeypatch.setattr("utils.config.REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    generate(tmp_path / "data/demo", scale=0.001)
    model = ["--arch", "TVTSv2_Demo", "--checkpoint", str(checkpoint), "-d", "cpu", "--num-workers", "0"]
    assert test_entry.main(["--all", *model, "--output", "all"]) == 0
    shown = capsys.readouterr().out
    assert "demo_msrvtt" in shown and "demo_hmdb51" in shown and "demo_ssv2" in shown
    assert "left out" not in shown and "failed" not in shown
    assert linear_probe.main(["--dataset", "demo_hmdb51", *model, "--output", "probe"]) == 0
    assert "8 training videos" in capsys.readouterr().out
