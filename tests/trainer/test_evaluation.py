"""Zero-shot evaluations within a run: their figures are those of test.py, on any number of ranks."""

import json
import shutil
from pathlib import Path

import pytest

import test as evaluate
import train
from tests.trainer import different_rank
from tests.trainer.runs import LIMIT, losses, rows
from trainer.checkpoint import list_checkpoints
from trainer.evaluation import Evaluations
from utils.errors import RunError

SETS = {  # folder, task, and what to compare of its figures with results.json
    "msrvtt": ("msrvtt", "retrieval", {"t2v_R1": "R1", "t2v_MedR": "MedR"}),
    "hmdb51": ("hmdb51", "recognition", {"top1": "top1"}),
    "ssv2": ("SSV2", "multiple_choice", {"top1": "top1"}),
}


@pytest.fixture(scope="session")
def configs(world, tmp_path_factory) -> list[str]:
    """Evaluation configs on the world's data, one a task."""
    folder = tmp_path_factory.mktemp("configs")
    for name, (root, task, _) in SETS.items():
        data = {"type": name, "root": str(world / root)}
        config = {"task": task, "name": name, "data": data, "meta": str(world / "meta_data")}
        (folder / f"{name}.json").write_text(json.dumps({**config, "num_workers": 0}))
    return [str(folder / f"{name}.json") for name in SETS]


@pytest.mark.heavy
def test_evaluations_are_those_of_test_py_and_leave_the_training_as_it_is(
    arguments, tmp_path, configs, undisturbed, capsys
):
    settings = {"trainer__evaluate": configs, "trainer__evaluate_every": 2, "trainer__tensorboard": True}
    assert train.main(arguments(name="watched", **settings)) == 0
    watched = tmp_path / "watched"
    assert losses(watched) == losses(undisturbed)
    [row] = rows(watched, "evaluation")
    assert (row["step"], row["epoch"]) == (12, 2)
    assert not (watched / "evaluations").exists()
    assert "evaluation, msrvtt: t2v_R1 " in (watched / "log.txt").read_text()
    checkpoint = ["--arch", "TVTSv2_Demo", "--checkpoint", str(watched / "checkpoint-epoch2.pth")]
    for path, (name, (_, _, figures)) in zip(configs, SETS.items(), strict=True):
        output = tmp_path / "out"
        assert evaluate.main(["--config", path, *checkpoint, "--output", str(output), "-d", "cpu"]) == 0
        results = json.loads((output / "results.json").read_text())
        plain = next(iter(results["metrics"].values()))["plain"]
        for figure, metric in figures.items():
            assert row[f"{name}_{figure}"] == pytest.approx(plain[metric])


@pytest.mark.heavy
def test_two_ranks_share_the_work(start, arguments, tmp_path, configs):
    """With FSDP, so that a model in slices is evaluated, before its first step, too."""
    settings = {"trainer__engine": "fsdp", "trainer__max_steps": 2, "data__val": []}
    settings |= {"trainer__evaluate": configs[:2], "trainer__validate_at_start": True}
    processes = start.ranks(2, arguments(name="two", **settings), tmp_path / "says")
    for process in processes:
        process.join(LIMIT)
    said = (tmp_path / "says0").read_text()
    assert [process.exitcode for process in processes] == [0, 0], said
    first, last = rows(tmp_path / "two", "evaluation")
    assert (first["step"], last["step"]) == (0, 2)
    assert all(0 <= last[name] <= 100 for name in ("msrvtt_v2t_R10", "hmdb51_top5"))


@pytest.mark.heavy
def test_where_ranks_share_no_folder_all_leave_the_evaluation_out(start, arguments, tmp_path, configs):
    settings = {"trainer__max_steps": 2, "data__val": [], "trainer__evaluate": configs[:2]}
    given = [*arguments(name="two", **settings), "--", "--set", f"trainer.save_dir={tmp_path / 'elsewhere'}"]
    processes = start.ranks(2, given, tmp_path / "says", different_rank.main)
    for process in processes:
        process.join(LIMIT)
    said = (tmp_path / "says0").read_text()
    assert [process.exitcode for process in processes] == [0, 0], said
    for name in ("msrvtt", "hmdb51"):
        assert f"evaluation, {name}, is left out: " in said
    assert said.count("do other machines not see it?") == 2


@pytest.mark.heavy
def test_one_that_a_run_did_not_come_to_is_made_up_for(arguments, tmp_path, configs, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    settings = {"name": "late", "trainer__evaluate": configs[:1], "data__val": []}
    monkeypatch.setattr(Evaluations, "embed", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        train.main(arguments(**settings))
    monkeypatch.undo()
    assert train.main(arguments("--resume", "auto", **settings)) == 0
    assert [row["epoch"] for row in rows(tmp_path / "late", "evaluation")] == [1, 2]


@pytest.mark.heavy
def test_vectors_of_other_weights_of_the_same_step_are_not_taken(arguments, tmp_path, configs, monkeypatch):
    """A run that ends in its first evaluation has no checkpoint: the next may begin with other weights."""

    def fail(*_):
        raise RunError("no room")

    settings = {"trainer__evaluate": configs[:1], "data__val": [], "trainer__max_steps": 1}
    settings |= {"trainer__validate_at_start": True, "seed": 5}
    assert train.main(arguments(name="own", **settings)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Evaluations, "measure", fail)
        with pytest.raises(SystemExit):
            train.main(arguments(name="again", **{**settings, "seed": 3}))
    assert (tmp_path / "again/evaluations").exists() and not list_checkpoints(tmp_path / "again")
    assert train.main(arguments(name="again", **settings)) == 0
    assert rows(tmp_path / "again", "evaluation")[0] == rows(tmp_path / "own", "evaluation")[0]


def test_what_cannot_be_evaluated_is_said_before_training(arguments, configs, tmp_path, capsys):
    gone = json.loads(Path(configs[0]).read_text())
    gone["data"]["root"], gone["meta"] = str(tmp_path / "gone"), str(tmp_path / "gone")
    (tmp_path / "gone.json").write_text(json.dumps(gone))
    for path, why in ((str(tmp_path / "gone.json"), "gone"), (configs[0], "name of its own")):
        with pytest.raises(SystemExit) as ended:
            train.main(arguments(name="x", trainer__evaluate=[configs[0], path]))
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert f"trainer.evaluate.1, {path}: " in said and why in said


def test_videos_that_cannot_be_read_stop_no_training(arguments, configs, tmp_path, world):
    config = json.loads(Path(configs[0]).read_text())
    config["data"]["root"] = str(tmp_path / "empty")
    (tmp_path / "empty.json").write_text(json.dumps(config))
    shutil.copytree(world / "msrvtt", tmp_path / "empty")
    files = sorted((tmp_path / "empty").rglob("*.mp4"))
    for file in files:
        file.write_bytes(b"no video")
    settings = {"trainer__evaluate": [str(tmp_path / "empty.json")], "data__val": [], "trainer__max_steps": 2}
    assert train.main(arguments(name="spoilt", **settings)) == 0
    said = (tmp_path / "spoilt/log.txt").read_text()
    assert "evaluation, msrvtt, is left out: 4 of 4 videos cannot be read" in said
    assert not rows(tmp_path / "spoilt", "evaluation")
