"""Shards of a list, each a run of its own, killed or not, and merged, are what one run makes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from downstream import feature_extraction
from downstream.feature_files import load_features
from tests.downstream.layouts import write_video
from tests.downstream.test_feature_extraction import command, embedded, run_until  # noqa: F401, a fixture
from tests.extras import extra
from utils.config import REPOSITORY


@pytest.fixture
def videos(tmp_path) -> Path:
    for i in range(7):
        write_video(tmp_path / "videos" / f"{i}.mp4", seed=i)
    return tmp_path / "videos"


def run(*given: object) -> int:
    return feature_extraction.main([str(word) for word in given])


def refused(capsys: pytest.CaptureFixture[str], *given: object) -> str:
    """What the command says, which takes it for a mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(*given)
    assert stop.value.code == 2
    return capsys.readouterr().err


def same(one: Path, other: Path) -> None:
    first, second = load_features(one), load_features(other)
    assert first.metadata == second.metadata and first.columns.keys() == second.columns.keys()
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name], err_msg=name)
    np.testing.assert_allclose(first.features, second.features, atol=1e-5)


@pytest.mark.parametrize("output", ["out.npz", "out.h5", "out"])
def test_shards_are_merged_in_the_order_of_the_list(output, videos, checkpoint, tmp_path, capsys):
    """Spans of a file that do not follow one another, in windows; numbers, texts; a broken file."""
    if output == "out.h5":
        extra("h5py")
    (videos / "3.mp4").write_bytes(b"")
    spans = [(0, 0, 1), (1, 0, 2), (0, 1, 2), (3, 0, 2), (2, 0.5, 2), (1, 1, 1.5)]
    lines = [
        json.dumps(
            {"path": f"videos/{i}.mp4", "start": a, "end": b, "label": f"no. {row}", "weight": row / 2}
        )
        for row, (i, a, b) in enumerate(spans)
    ]
    (tmp_path / "spans.jsonl").write_text("\n".join(lines) + "\n")
    fixed = ["--one-file-each"] if output == "out" else []
    given = command(checkpoint, "--list", tmp_path / "spans.jsonl", "--window", 0.7, *fixed)
    out = tmp_path / output
    for number in (3, 1, 6, 5, 4, 2):  # more than there are files
        assert run(*given, "-o", out, "--shard", f"{number}/6") == int(number == 3)
        failed = json.loads((tmp_path / f"{output}.shards/{number}-of-6.safetensors.report.json").read_text())
        assert bool(failed["failed_files"]) == (number == 3)
    capsys.readouterr()
    for again in range(2):
        assert run("--merge", "-o", out, *fixed) == 1
        said = capsys.readouterr()
        assert "1 video cannot be read" in said.err and "3.mp4: the file is empty" in said.err
        assert ("11 were there already" in said.out) == bool(again)
        (failure,) = json.loads((tmp_path / f"{output}.report.json").read_text())["failed_files"]
        assert failure == {"path": str(videos / "3.mp4"), "reason": "the file is empty"}
    one = out.with_name(f"one-{output}")
    assert run(*given, "-o", one) == 1
    assert len(load_features(one)) == 11
    same(one, out)


def test_all_tokens_are_merged(videos, checkpoint, tmp_path):
    given = command(checkpoint, videos / "1.mp4", videos / "2.mp4", "--tokens")
    for shard in ("1/2", "2/2"):
        assert run(*given, "-o", tmp_path / "out.safetensors", "--shard", shard) == 0
    assert run("--merge", "-o", tmp_path / "out.safetensors") == 0
    assert run(*given, "-o", tmp_path / "one.safetensors") == 0
    one, merged = load_features(tmp_path / "one.safetensors"), load_features(tmp_path / "out.safetensors")
    assert merged.columns["path"] == one.columns["path"]
    np.testing.assert_allclose(merged.columns["tokens"], one.columns["tokens"], atol=1e-4)


@pytest.mark.heavy
def test_the_array_of_the_docs_goes_on_where_it_was_killed(videos, checkpoint, tmp_path, capsys, embedded):  # noqa: F811
    """Processes of their own: a shard that is killed, one that Slurm numbers, a merge that is killed."""
    given = command(checkpoint, videos, "-o", tmp_path / "out.npz")
    killed = run_until(signal.SIGKILL, [*given, "--shard", "1/1"])  # it would have been another cut: refused
    assert killed.returncode == -signal.SIGKILL
    assert "not complete, with --shard 1/1" in refused(capsys, "--merge", "-o", tmp_path / "out.npz")
    assert run(*given, "--shard", "1/1") == 0
    assert embedded == ["4.mp4", "5.mp4", "6.mp4"]

    text = (REPOSITORY / "docs/features.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    files = "".join(f"videos/{i}.mp4\n" for i in range(7))
    (tmp_path / "spans.csv").write_text(f"path\n{files}")
    script = script.replace("python downstream", f"{sys.executable} {REPOSITORY}/downstream")
    small = script.replace(
        "TVTSv2_B_32", f"TVTSv2_Demo --checkpoint {checkpoint} --num-workers 0 --device cpu"
    )
    (tmp_path / "extract.sh").write_text(small.replace(".h5", ".npz"))
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3", "OMP_NUM_THREADS": "1"}
    subprocess.run(["bash", "extract.sh"], cwd=tmp_path, env=os.environ | slurm, check=True, timeout=300)
    out = tmp_path / "all.npz"
    paths = load_features(tmp_path / "all.npz.shards/2-of-3.safetensors").columns["path"]
    assert paths == [str(videos / f"{i}.mp4") for i in (1, 4)]
    of_list = command(checkpoint, "--list", tmp_path / "spans.csv", "-o", out)
    for shard in ("1/3", "3/3"):
        assert run(*of_list, "--shard", shard) == 0

    killed = run_until(signal.SIGKILL, ["--merge", "-o", str(out)])  # two of three shards are written
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    embedded.clear()
    assert run("--merge", "-o", out) == 0
    assert embedded == ["2.mp4", "5.mp4"]
    assert load_features(out).columns["path"] == [str(videos / f"{i}.mp4") for i in range(7)]
    assert run("--merge", "-o", tmp_path / "out.npz") == 0
    np.testing.assert_allclose(
        load_features(out).features, load_features(tmp_path / "out.npz").features, atol=1e-5
    )


def test_shards_that_do_not_go_together(videos, checkpoint, tmp_path, capsys):
    out, shards = tmp_path / "out.npz", tmp_path / "out.npz.shards"
    given = command(checkpoint, videos, "-o", out)
    assert "there are no shards in" in refused(capsys, "--merge", "-o", out)
    assert run(*given, "--shard", "1/3") == 0
    assert "2 shards of 3" in refused(capsys, "--merge", "-o", out)
    said = refused(capsys, *given, "--shard", "2/2")  # of an array of which two were started again
    assert "1-of-3.json is a shard of 3" in said and "--shard 3/3" in said
    assert "window None (here 0.5)" in refused(capsys, *given, "--shard", "2/3", "--window", 0.5)
    write_video(videos / "7.mp4", seed=7)
    assert "another list of videos" in refused(capsys, *given, "--shard", "2/3")
    assert "another list of videos" in refused(capsys, *given, "--shard", "1/3")
    (videos / "7.mp4").unlink()
    assert run(*given, "--shard", "2/3") == run(*given, "--shard", "3/3") == 0

    about, table = shards / "2-of-3.json", shards / "2-of-3.safetensors"
    kept = about.read_bytes()
    shutil.copy(shards / "1-of-3.json", about)
    assert "does not say what 2-of-3 is" in refused(capsys, "--merge", "-o", out)
    about.write_bytes((shards / "1-of-3.json").read_bytes().replace(b"1-of-3", b"2-of-3"))
    assert "the same row of the list" in refused(capsys, "--merge", "-o", out)
    about.write_bytes(kept[:-9])
    assert "does not say what 2-of-3 is" in refused(capsys, "--merge", "-o", out)
    about.write_bytes(kept)
    table.rename(tmp_path / "away")
    assert "2-of-3.safetensors is missing; run --shard 2/3" in refused(capsys, "--merge", "-o", out)
    assert not out.exists()
    assert run(*given, "--shard", "2/3") == run("--merge", "-o", out) == 0
    assert len(load_features(out)) == 7
    # A shard of another list, though its own files are as they were, made as if the others were not there.
    write_video(videos / "7.mp4", seed=7)
    assert run(*given, "--shard", "2/3", "--overwrite") == 0
    assert "another list of videos" in refused(capsys, "--merge", "-o", out)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--shard", "0/4"], "counted from 1"),
        (["--shard", "5/4"], "counted from 1"),
        (["--shard", "3/1"], "write its N out"),
        (["--shard", "/"], "is no shard K/N"),  # outside of Slurm
        (["--shard", "1/2", "--report", "pages"], "give --report to --merge"),
        (["--shard", "1/2", "--text", "a dog"], "--shard is for videos"),
        (["--merge"], "needs the --output"),
        (
            ["--merge", "-o", "x.npz", "--window", "3", "--shard", "1/2", "y.mp4"],
            "leave out VIDEO, --shard, --window",
        ),
    ],
)
def test_mistakes_are_explained(given, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(capsys, *given)
    assert list(tmp_path.iterdir()) == []


def test_names_that_meet_are_refused_before_the_work(videos, checkpoint, tmp_path, capsys):
    write_video(videos / "deep/1.mp4", seed=9)
    given = command(checkpoint, videos, "-o", tmp_path / "out", "--one-file-each", "--shard", "1/9")
    assert "would both be" in refused(capsys, *given)
