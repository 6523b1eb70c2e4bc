"""Features against a plain version; killed, resumed, repeated, in every format; broken files and mistakes."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from CLIP import tokenize
from data_loader.transforms import normalize
from data_loader.video import read_frames
from downstream import feature_extraction, search
from downstream.embedding import resumable_table
from downstream.embedding.resumable_table import ResumableTable
from downstream.feature_files import load_features
from downstream.features import extract_features
from model import create_model
from utils.config import REPOSITORY
from utils.environment import bf16_instructions

from .launch import launch
from .layouts import write_video


@pytest.fixture
def videos(tmp_path) -> Path:
    for i in range(7):
        write_video(tmp_path / "videos" / f"{i}.mp4", seed=i, frames=20 if i else 5)
    return tmp_path / "videos"


def command(checkpoint: Path, *more: object) -> list[str]:
    fixed = ["--arch", "TVTSv2_Demo", "--checkpoint", checkpoint, "--num-workers", 0, "--device", "cpu"]
    return [str(x) for x in [*more, *fixed]]


@torch.no_grad()
def plain_feature(model, path: Path, first: int = 0, end: int | None = None, frames: int = 12) -> np.ndarray:
    """One video by the official recipe, step by step."""
    everything, _, vlen = read_frames(path, lambda video: range(len(video)), reader="pyav")
    end = vlen if end is None else end
    indices = [first + int(i) for i in np.linspace(0, end - first - 1, frames)]
    size = (model.image_size, model.image_size)
    pictures = [
        np.asarray(
            Image.fromarray(everything[i].permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BILINEAR)
        )
        for i in indices
    ]
    clip = normalize(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    return model.encode_video(clip[None])[0][0].numpy()


def test_features_of_a_folder(videos, model, checkpoint, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert feature_extraction.main(command(checkpoint, videos, "-o", out, "--batch-size", 3)) == 0
    table = load_features(out)
    assert table.columns["path"] == [str(videos / f"{i}.mp4") for i in range(7)]
    assert table.columns["num_frames"].tolist() == [5] + [20] * 6
    np.testing.assert_allclose(table.columns["duration"], [0.5] + [2.0] * 6)
    expected = np.stack([plain_feature(model, videos / f"{i}.mp4") for i in range(7)])
    np.testing.assert_allclose(table.features, expected, atol=2e-5)
    assert "video features: [7, 96]" in capsys.readouterr().out
    assert table.metadata["arch"] == "TVTSv2_Demo" and len(table.metadata["checkpoint_sha256"]) == 64
    assert not out.with_name("out.safetensors.parts").exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_other_formats_hold_the_same(suffix, videos, checkpoint, tmp_path):
    assert feature_extraction.main(command(checkpoint, videos, "-o", tmp_path / "a.safetensors")) == 0
    assert feature_extraction.main(command(checkpoint, videos, "-o", tmp_path / f"a{suffix}")) == 0
    one, other = load_features(tmp_path / "a.safetensors"), load_features(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(one.features, other.features)
    assert one.metadata == other.metadata and one.columns.keys() == other.columns.keys()
    for name, column in one.columns.items():
        np.testing.assert_array_equal(column, other.columns[name])


def test_the_function_gives_the_features(videos, model, checkpoint):
    found = extract_features([videos / "3.mp4"], "TVTSv2_Demo", checkpoint, num_workers=0, device="cpu")
    np.testing.assert_allclose(found.table.features[0], plain_feature(model, videos / "3.mp4"), atol=2e-5)
    assert found.failed == {} and found.reused == 0


def test_windows(videos, model, checkpoint, tmp_path):
    out = tmp_path / "out.npz"
    given = command(checkpoint, videos / "1.mp4", videos / "0.mp4", "-o", out, "--window", 0.8)
    assert feature_extraction.main(given) == 0
    table = load_features(out)
    # 2 s are cut at 0.8 and 1.6; the video of half a second is one window.
    np.testing.assert_allclose(table.columns["start"], [0, 0.8, 1.6, 0])
    np.testing.assert_allclose(table.columns["end"], [0.8, 1.6, 2.0, 0.5])
    for row, (first, end) in enumerate([(0, 8), (8, 16), (16, 20)]):
        expected = plain_feature(model, videos / "1.mp4", first, end)
        np.testing.assert_allclose(table.features[row], expected, atol=2e-5)


def test_tokens(videos, model, checkpoint, tmp_path):
    out = tmp_path / "out.safetensors"
    assert feature_extraction.main(command(checkpoint, videos / "1.mp4", "-o", out, "--tokens")) == 0
    table = load_features(out)
    assert table.columns["tokens"].shape == (1, 1 + 12 * model.num_patches, 96)
    np.testing.assert_allclose(table.columns["tokens"][:, 0], table.features, atol=1e-6)
    with pytest.raises(SystemExit):
        feature_extraction.main(command(checkpoint, videos, "-o", tmp_path / "out.parquet", "--tokens"))


STOPPED = """
import os, signal, sys
from downstream import feature_extraction, search
from downstream.embedding import resumable_table
from downstream.embedding.resumable_table import ResumableTable

resumable_table.SAVE_EVERY_S = 0
add, left = ResumableTable.add, [2]
def add_and_stop(self, rows):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGNAL)
    left[0] -= 1
    add(self, rows)
ResumableTable.add = add_and_stop
sys.exit(feature_extraction.main(sys.argv[1:]))
"""


def run_until(stop: signal.Signals, given: list[str]) -> subprocess.CompletedProcess:
    """The command, which gets a signal when it has embedded two batches, of two videos on a CPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", STOPPED.replace("SIGNAL", stop.name), *given],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def interrupt(given: list[str]) -> None:
    """The same in this process: Ctrl-C after two batches."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        add, left = ResumableTable.add, [2]

        def add_or_stop(self, rows):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return add(self, rows)

        patch.setattr(ResumableTable, "add", add_or_stop)
        feature_extraction.main(given)
    assert stop.value.code == 130


@pytest.fixture
def embedded(monkeypatch) -> list[str]:
    """The names of the videos that are embedded from now on."""
    names: list[str] = []
    add = ResumableTable.add

    def added(self, rows):
        names.extend(Path(path).name for path in rows.columns["path"])
        return add(self, rows)

    monkeypatch.setattr(ResumableTable, "add", added)
    return names


@pytest.mark.heavy
def test_a_killed_run_goes_on_and_does_no_video_twice(videos, checkpoint, tmp_path, embedded, capsys):
    out = tmp_path / "out.safetensors"
    given = command(checkpoint, videos, "-o", out)
    assert run_until(signal.SIGKILL, given).returncode == -signal.SIGKILL
    assert not out.exists() and out.with_name("out.safetensors.parts").is_dir()
    assert feature_extraction.main(given) == 0
    assert embedded == ["4.mp4", "5.mp4", "6.mp4"]
    assert "(4 were there already)" in capsys.readouterr().out
    resumed = load_features(out)
    assert feature_extraction.main(command(checkpoint, videos, "-o", tmp_path / "whole.safetensors")) == 0
    whole = load_features(tmp_path / "whole.safetensors")
    assert resumed.columns["path"] == whole.columns["path"]
    np.testing.assert_allclose(resumed.features, whole.features, atol=1e-6)

    # Again: nothing to do. After a change: the changed video and the new one alone.
    embedded.clear()
    assert feature_extraction.main(given) == 0
    assert embedded == []
    write_video(videos / "2.mp4", seed=50, frames=11)
    write_video(videos / "9.mp4", seed=51)
    assert feature_extraction.main(given) == 0
    assert embedded == ["2.mp4", "9.mp4"]
    assert load_features(out).columns["num_frames"].tolist() == [5, 20, 11, 20, 20, 20, 20, 20]


@pytest.mark.heavy
def test_ctrl_c_keeps_what_is_embedded_and_says_so(videos, checkpoint, tmp_path, embedded):
    out = tmp_path / "out.npz"
    given = command(checkpoint, videos, "-o", out)
    stopped = run_until(signal.SIGINT, given)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    (line,) = [line for line in stopped.stderr.splitlines() if line.startswith("interrupted: ")]
    assert f"4 of 7 vectors are kept in {out}.parts; the same command goes on" in line
    assert feature_extraction.main(given) == 0
    assert embedded == ["4.mp4", "5.mp4", "6.mp4"] and len(load_features(out)) == 7


def test_rows_are_added_and_only_overwrite_replaces(videos, model, checkpoint, tmp_path, embedded, capsys):
    out = tmp_path / "out.safetensors"
    assert feature_extraction.main(command(checkpoint, videos, "-o", out)) == 0
    tiny = write_video(tmp_path / "tiny.mp4", seed=40)
    embedded.clear()
    capsys.readouterr()
    assert feature_extraction.main(command(checkpoint, tiny, "-o", out)) == 0
    said = capsys.readouterr().out
    assert embedded == ["tiny.mp4"] and "video features: [1, 96]" in said
    assert "(7 other vectors kept)" in said
    table = load_features(out)
    assert [Path(path).name for path in table.columns["path"]] == [
        *(f"{i}.mp4" for i in range(7)),
        "tiny.mp4",
    ]
    for row in (0, 7):
        expected = plain_feature(model, Path(table.columns["path"][row]))
        np.testing.assert_allclose(table.features[row], expected, atol=2e-5)
    # An interrupted run on some videos, then one on others: all are there.
    other = tmp_path / "other.safetensors"
    interrupt(command(checkpoint, videos, "-o", other))
    assert feature_extraction.main(command(checkpoint, tiny, videos / "1.mp4", "-o", other)) == 0
    names = [Path(path).name for path in load_features(other).columns["path"]]
    assert sorted(names[:3]) == ["0.mp4", "2.mp4", "3.mp4"] and names[3:] == ["tiny.mp4", "1.mp4"]
    # Overwriting: the old rows stay until the new ones are complete.
    given = command(checkpoint, videos, "-o", other, "--overwrite")
    interrupt(given)
    assert "the same command without --overwrite goes on" in capsys.readouterr().err
    assert len(load_features(other)) == 5
    embedded.clear()
    assert feature_extraction.main([word for word in given if word != "--overwrite"]) == 0
    assert embedded == ["4.mp4", "5.mp4", "6.mp4"]
    assert load_features(other).columns["path"] == [str(videos / f"{i}.mp4") for i in range(7)]


def test_a_moved_folder_is_not_embedded_again(videos, checkpoint, tmp_path, embedded, capsys):
    (videos / "deep").mkdir()
    shutil.copy2(videos / "1.mp4", videos / "deep/1.mp4")  # another video of the same name, size and time
    out = tmp_path / "out.npz"
    assert feature_extraction.main(command(checkpoint, videos, "-o", out)) == 0
    before = load_features(out)
    videos.rename(tmp_path / "films")
    embedded.clear()
    assert feature_extraction.main(command(checkpoint, tmp_path / "films", "-o", out)) == 0
    assert embedded == ["1.mp4", "1.mp4"]  # it cannot be told which of them is which
    assert (
        "(6 were there already, 6 of them from files that have been moved, 2 other vectors kept)"
        in capsys.readouterr().out
    )
    after = load_features(out)
    moved = [path.replace(str(videos), str(tmp_path / "films")) for path in before.columns["path"]]
    assert after.columns["path"][-8:] == moved
    np.testing.assert_allclose(after.features[-8:], before.features, atol=1e-6)
    shutil.copytree(tmp_path / "films", tmp_path / "copy")  # both are there: copies, not the same videos
    embedded.clear()
    assert feature_extraction.main(command(checkpoint, tmp_path / "copy", "-o", out)) == 0
    assert len(embedded) == 8


@pytest.mark.heavy
def test_two_runs_into_one_output_do_not_meet(videos, checkpoint, tmp_path, capsys):
    """The second is refused while the first lives, and goes on after it was killed."""
    out = tmp_path / "out.npz"
    given = command(checkpoint, videos, "-o", out)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    first = subprocess.Popen(
        [sys.executable, "-c", STOPPED.replace("SIGNAL", "SIGSTOP"), *given], env=environment
    )
    try:
        os.waitpid(first.pid, os.WUNTRACED)
        with pytest.raises(SystemExit) as stop:
            feature_extraction.main(given)
        assert stop.value.code == 1
        said = capsys.readouterr().err
        assert f"another run is writing {out} (process {first.pid})" in said
    finally:
        first.kill()
        first.wait()
    assert feature_extraction.main(given) == 0
    assert "(4 were there already)" in capsys.readouterr().out


def test_rows_that_vanish_are_an_error(videos, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resumable_table, "SAVE_EVERY_S", 0)
    finish = ResumableTable.finish

    def finish_without_parts(self, failed=()):
        shutil.rmtree(self.folder)
        return finish(self, failed)

    monkeypatch.setattr(ResumableTable, "finish", finish_without_parts)
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(command(checkpoint, videos, "-o", tmp_path / "out.npz"))
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "7 vectors that this run has made are not in" in said and str(videos / "0.mp4") in said


def test_a_missing_reader_is_noticed_before_anything_is_loaded(videos, tmp_path, monkeypatch, capsys):
    given = [str(videos), "-r", "/nowhere.pth", "-o", str(tmp_path / "out.npz"), "--reader"]
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main([*given, "opencv"])
    assert stop.value.code == 2 and "unknown video reader 'opencv'" in capsys.readouterr().err
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main([*given, "torchcodec"])
    assert stop.value.code == 2 and "pip install torchcodec" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_model_of_other_frames(videos, tmp_path):
    torch.manual_seed(0)
    model = create_model("TVTSv2_Demo", sort_head=False, num_frames=5).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "five.pth")
    out = tmp_path / "out.npz"
    assert feature_extraction.main(command(tmp_path / "five.pth", videos / "1.mp4", "-o", out)) == 0
    table = load_features(out)
    assert table.metadata["num_frames"] == 5
    expected = plain_feature(model, videos / "1.mp4", frames=5)
    np.testing.assert_allclose(table.features[0], expected, atol=2e-5)


def test_names_that_are_not_utf8(videos, checkpoint, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9 [1].mp4")
    (videos / "1.mp4").rename(videos / name)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfvideos/caf\xe9 [1].mp4\r\nvideos/gone [2].mp4\n")
    tables = []
    for suffix in (".safetensors", ".npz", ".parquet"):
        out = tmp_path / f"out{suffix}"
        assert feature_extraction.main(command(checkpoint, "--list", tmp_path / "list.txt", "-o", out)) == 1
        tables.append(load_features(out))
        assert tables[-1].columns["path"] == [str(videos / name)]
        report = json.loads(out.with_name(f"{out.name}.report.json").read_text())
        assert report["failed_files"] == [{"path": str(videos / "gone [2].mp4"), "reason": "no such file"}]
    for table in tables[1:]:
        np.testing.assert_array_equal(table.features, tables[0].features)
    page = tmp_path / "found.html"
    given = ["a dog", "-f", str(tmp_path / "out.parquet"), "-r", str(checkpoint), "-d", "cpu"]
    assert search.main([*given, "--page", str(page)]) == 0
    assert "caf\\udce9 [1].mp4" in capsys.readouterr().out and "caf%E9%20%5B1%5D.mp4" in page.read_text()
    (videos / name).write_bytes(b"")
    pages = tmp_path / "pages"
    given = command(checkpoint, videos, "-o", tmp_path / "all.parquet", "--report", pages)
    assert feature_extraction.main(given) == 1
    (tmp_path / "all.parquet").unlink()
    write_video(videos / name, seed=1)
    (videos / "2.mp4").write_bytes(b"")
    assert feature_extraction.main(given) == 1 and "caf" in (pages / "features.html").read_text()
    failures = json.loads((tmp_path / "all.parquet.report.json").read_text())["failed_files"]
    assert failures == [{"path": str(videos / "2.mp4"), "reason": "the file is empty"}]


def test_other_settings_do_not_mix(videos, checkpoint, tmp_path, capsys):
    given = command(checkpoint, videos, "-o", tmp_path / "out.npz")
    assert feature_extraction.main(given) == 0
    with pytest.raises(SystemExit):
        feature_extraction.main([*given, "--precision", "bf16"])
    message = capsys.readouterr().err
    assert "precision 'fp32' (now 'bf16')" in message and "--overwrite" in message
    assert feature_extraction.main([*given, "--precision", "bf16", "--overwrite"]) == 0
    warned = "this processor has no bf16 instructions" in capsys.readouterr().err
    assert warned == (bf16_instructions() == [])
    assert load_features(tmp_path / "out.npz").metadata["precision"] == "bf16"


def test_unreadable_files_are_reported(videos, checkpoint, tmp_path, capsys):
    (videos / "2.mp4").write_bytes(b"")
    out = tmp_path / "out.parquet"
    (tmp_path / "list.txt").write_text(f"{videos}\nnowhere.mp4\n")
    given = command(checkpoint, "--list", tmp_path / "list.txt", "-o", out)
    assert feature_extraction.main(given) == 1
    assert len(load_features(out)) == 6
    report = json.loads((tmp_path / "out.parquet.report.json").read_text())
    reasons = {Path(failure["path"]).name: failure["reason"] for failure in report["failed_files"]}
    assert reasons == {"2.mp4": "the file is empty", "nowhere.mp4": "no such file"}
    assert "2 videos cannot be read" in capsys.readouterr().err
    # Mended and asked again, it is done.
    write_video(videos / "2.mp4", seed=2)
    assert feature_extraction.main(given) == 1
    assert len(load_features(out)) == 7


def test_features_stay_while_their_videos_are_out_of_reach(videos, checkpoint, tmp_path):
    out = tmp_path / "out.npz"
    (tmp_path / "list.txt").write_text("".join(f"{videos / f'{i}.mp4'}\n" for i in range(2)))
    given = command(checkpoint, "--list", tmp_path / "list.txt", "-o", out)
    assert feature_extraction.main(given) == 0
    before = out.read_bytes()
    videos.rename(tmp_path / "elsewhere")
    assert feature_extraction.main(given) == 1
    assert out.read_bytes() == before


def test_a_distributed_checkpoint_gives_what_its_file_gives(videos, checkpoint, sharded):
    found = [
        extract_features([videos / "3.mp4"], "TVTSv2_Demo", weights, num_workers=0, device="cpu")
        for weights in (checkpoint, sharded)
    ]
    np.testing.assert_array_equal(found[0].table.features, found[1].table.features)


def test_what_cannot_be_written_costs_nothing_else(videos, checkpoint, tmp_path, capsys, blocked):
    """A folder is tried before the work; later the features are there, and said to be, before the page."""
    for option in ("--output", "--report"):
        place = blocked / "x.npz" if option == "--output" else blocked
        given = command(checkpoint, videos / "1.mp4", "-o", tmp_path / "x.npz", option, place)
        with pytest.raises(SystemExit) as stop:
            feature_extraction.main(given)
        assert stop.value.code == 2
        assert f"error: could not write {blocked}" in capsys.readouterr().err
        assert not (tmp_path / "x.npz").exists()

    (tmp_path / "pages/features.html").mkdir(parents=True)
    given = command(checkpoint, videos / "1.mp4", "-o", tmp_path / "x.npz", "--report", tmp_path / "pages")
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(given)
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "video features: [1, 96]" in said.out and "features.html: Is a directory" in said.err
    assert len(load_features(tmp_path / "x.npz")) == 1


def test_nothing_readable(checkpoint, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    out = tmp_path / "out.npz"
    assert feature_extraction.main(command(checkpoint, tmp_path / "a.mp4", "-o", out)) == 1
    assert not out.exists() and not out.with_name("out.npz.parts").exists()


def test_texts(model, checkpoint, tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("a dog runs\n\nthe sea at night\n")
    out = tmp_path / "texts.npz"
    assert feature_extraction.main(command(checkpoint, "-o", out, "--text", tmp_path / "captions.txt")) == 0
    table = load_features(out)
    assert table.columns["text"] == ["a dog runs", "the sea at night"]
    with torch.no_grad():
        expected = model.encode_text(tokenize(table.columns["text"])).numpy()
    np.testing.assert_allclose(table.features, expected, atol=1e-5)
    assert "text features: [2, 96]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["-o", "x.npz"], "no videos given"),
        (["--text", "a dog", "-o", "x.npz", "--report", "pages"], "none of texts"),
        ([__file__, "-o", "x.pt"], ".safetensors, .npz, .parquet"),
        ([__file__, __file__], "say where the features go"),
        (["/nowhere/", "-o", "x.npz"], "no such file or folder: /nowhere/"),
        (["--video_path", "/nowhere.mp4"], "no such file or folder: /nowhere.mp4"),
        (["/nowhere/*.mp4", "-o", "x.npz"], "no file matches"),
        (["--list", "/nowhere.txt", "-o", "x.npz"], "/nowhere.txt"),
        (["--text", "captoins.txt", "-o", "x.npz"], "no file of texts captoins.txt"),
        ([__file__, "-o", "x.npz", "--window", "inf"], "'inf' is no number of seconds above 0"),
        ([__file__, "-o", "x.npz", "--fps", "inf"], "'inf' is no number above 0"),
    ],
)
def test_mistakes_are_explained(given, expected, checkpoint, capsys):
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(command(checkpoint, *given))
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".txt", ".CSV", ".lst"])
def test_a_list_given_as_a_video_is_met_with_its_option(suffix, tmp_path, capsys):
    path = tmp_path / f"videos{suffix}"
    path.write_text("a.mp4\n")
    with pytest.raises(SystemExit) as stop:  # with no weights there: it is said before they are looked for
        feature_extraction.main([str(path), "-r", "/nowhere.pth", "--report", str(tmp_path / "pages")])
    assert stop.value.code == 2
    assert f"--list {path}" in capsys.readouterr().err
    assert not (tmp_path / "pages").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--window" in shown and "--text" in shown and "Exit status" in shown


@pytest.mark.parametrize("variant", ["B_32", "B_16", "H_14"])
def test_the_official_commands_take_their_model(variant, monkeypatch, capsys):
    script = REPOSITORY / f"downstream/feature_extraction_TVTSv2_{variant}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0
    assert f"(default: TVTSv2_{variant})" in " ".join(capsys.readouterr().out.split())


def test_the_official_command(videos, checkpoint, tmp_path):
    """As named by the official release, from downstream/; a small model in place of theirs."""
    out = tmp_path / "out.safetensors"
    given = command(checkpoint, "--video_path", videos / "1.mp4", "--output", out)
    script = "feature_extraction_TVTSv2_B_32.py"
    done = launch([script, *given], cwd=REPOSITORY / "downstream")
    assert done.returncode == 0, done.stderr
    assert "[1, 96]" in done.stdout and str(out) in done.stdout
    assert len(load_features(out)) == 1


def test_one_video_has_a_default_output(videos, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert feature_extraction.main(command(checkpoint, "--video_path", videos / "1.mp4")) == 0
    assert len(load_features(tmp_path / "results/features/TVTSv2_Demo/1.mp4.safetensors")) == 1
