"""Features as a folder of a file a video: what stands there, and that no mishap mixes it up."""

import json
import os

import numpy as np
import pytest

from downstream import feature_extraction
from downstream.feature_files import FeatureTable, folders, load_features, write_features
from downstream.features import extract_features
from utils.files import WriteError

from ..layouts import write_video
from ..test_feature_extraction import command


def table(paths: list[str], first: int = 0) -> FeatureTable:
    count = len(paths)
    features = np.arange(first, first + 2 * count, dtype=np.float32).reshape(count, 2)
    columns = {
        "path": paths,
        "start": np.arange(count) + 0.5,
        "score": np.array([np.nan] * count),
        "n": np.arange(count),
    }
    return FeatureTable(features, columns, {"arch": "x", "window": 1.0})


def test_a_video_a_file(tmp_path):
    write_features(tmp_path, table(["/v/b.mp4", "/v/a.x.mp4", "/v/b.mp4"]))
    assert sorted(os.listdir(tmp_path)) == ["a.x.json", "a.x.npy", "b.json", "b.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), [[0, 1], [4, 5]])
    about = json.loads((tmp_path / "b.json").read_text())
    assert about["settings"] == {"arch": "x", "window": 1.0}
    assert about["columns"] == {
        "path": ["/v/b.mp4"] * 2,
        "start": [0.5, 2.5],
        "score": [None] * 2,
        "n": [0, 2],
    }
    back = load_features(tmp_path)
    assert (
        back.columns["path"] == ["/v/a.x.mp4", "/v/b.mp4", "/v/b.mp4"] and back.metadata == about["settings"]
    )
    np.testing.assert_array_equal(back.features, [[2, 3], [0, 1], [4, 5]])
    assert back.columns["n"].tolist() == [1, 0, 2] and np.isnan(back.columns["score"]).all()


def test_what_stays_the_same_is_left_alone_and_what_is_gone_goes(tmp_path):
    write_features(tmp_path, table(["a.mp4", "b.mp4", "c.mp4"]))
    (tmp_path / "mine.json").write_text("{}")  # no .npy beside it: none of ours
    os.utime(tmp_path / "a.npy", (1, 1))
    changed = table(["a.mp4", "b.mp4"])
    changed.features[1] = 9
    write_features(tmp_path, changed)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.npy", "b.json", "b.npy", "mine.json"]
    assert (tmp_path / "a.npy").stat().st_mtime == 1
    np.testing.assert_array_equal(load_features(tmp_path).features, [[0, 1], [9, 9]])


def test_what_does_not_belong_together_is_refused(tmp_path):
    write_features(tmp_path, table(["a.mp4", "b.mp4"]))
    np.save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"a\.npy and a\.json do not belong together"):
        load_features(tmp_path)
    (tmp_path / "a.json").unlink()  # as when a run is killed while it replaces the two
    assert load_features(tmp_path).columns["path"] == ["b.mp4"]
    content = json.loads((tmp_path / "b.json").read_text()) | {"settings": {"arch": "y"}}
    (tmp_path / "a.json").write_text(json.dumps(content | {"columns": {"path": ["a.mp4"] * 3}}))
    with pytest.raises(ValueError, match="made with other settings than the rest"):
        load_features(tmp_path)
    (tmp_path / "a.npy").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"a\.npy and a\.json do not belong together"):
        load_features(tmp_path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=r"a folder without \.npy files"):
        load_features(tmp_path / "sub")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(WriteError, match=r"could not write .*a\.npy|could not write"):
        folders.write(tmp_path, table(["a.mp4"]))


def test_the_command_writes_goes_on_and_replaces(tmp_path, checkpoint, capsys):
    for i in range(3):
        write_video(tmp_path / "videos" / f"{i}.mp4", seed=i)
    out = tmp_path / "features"
    given = command(checkpoint, tmp_path / "videos", "-o", out, "--one-file-each", "--window", 0.8)
    assert feature_extraction.main(given) == 0
    assert sorted(os.listdir(out)) == [f"{i}.{kind}" for i in range(3) for kind in ("json", "npy")]
    assert not out.with_name("features.parts").exists()
    one = extract_features(
        [tmp_path / "videos"], "TVTSv2_Demo", checkpoint, window=0.8, num_workers=0, device="cpu"
    )
    np.testing.assert_array_equal(load_features(out).features, one.table.features)
    assert np.load(out / "1.npy").shape == (3, 96)
    capsys.readouterr()
    assert feature_extraction.main(given) == 0
    assert "(9 were there already)" in capsys.readouterr().out
    write_video(tmp_path / "videos/1.mp4", seed=5, frames=10)
    (tmp_path / "videos/2.mp4").write_bytes(b"")
    assert feature_extraction.main(given) == 1  # one changed, one cannot be read any more
    assert np.load(out / "1.npy").shape == (2, 96) and np.load(out / "2.npy").shape == (3, 96)
    twin = write_video(tmp_path / "more/0.avi", seed=7)
    for wrong, message in (
        (
            [twin, "-o", out, "--one-file-each", "--window", 0.8],
            f"0.mp4 and {twin} would both be {out / '0.npy'}",
        ),
        ([twin, "-o", tmp_path / "x.npz", "--one-file-each"], "a file each goes into a folder"),
        ([twin, "-o", out, "--one-file-each", "--tokens"], "a file each holds no tokens"),
        (["--text", "a dog", "-o", out, "--one-file-each"], "--one-file-each is for videos"),
        ([twin, "-o", out], "--one-file-each be given"),
    ):
        with pytest.raises(SystemExit) as stop:
            feature_extraction.main(command(checkpoint, *wrong))
        assert stop.value.code == 2 and message in capsys.readouterr().err
    assert (
        feature_extraction.main([*command(checkpoint, twin, "-o", out, "--one-file-each"), "--overwrite"])
        == 0
    )
    assert sorted(os.listdir(out)) == ["0.json", "0.npy"]


@pytest.mark.parametrize(
    ("theirs", "options", "message"),
    [
        (["v.npy"], [], "v.npy is none of ours"),
        (["v.json"], [], "v.json is none of ours"),
        (["other.npy", "other.json"], ["--overwrite"], "holds files that are none of ours"),
    ],
)
def test_files_of_others_are_neither_replaced_nor_removed(
    theirs, options, message, checkpoint, tmp_path, capsys
):
    video = write_video(tmp_path / "v.mp4", seed=0)
    folder = tmp_path / "features"
    folder.mkdir()
    for name in theirs:
        (folder / name).write_text("{}")
    given = command(checkpoint, video, "--one-file-each", "--output", folder, *options)
    with pytest.raises(SystemExit) as stop:
        feature_extraction.main(given)
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(theirs, "{}")
