"""What stands beside the videos of tar files travels to the features, and is checked before it does."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from downstream import feature_extraction
from downstream.feature_files import load_features
from downstream.inputs import find_videos
from downstream.inputs.sidecars import read_sidecars
from tests.downstream.layouts import write_video
from tests.downstream.test_feature_extraction import command


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def test_sidecars_become_columns(tmp_path, checkpoint, capsys):
    videos = [write_video(tmp_path / f"{i}.mp4", seed=i).read_bytes() for i in range(4)]
    about = {"caption": "a dog", "width": 64}
    one = {"a.mp4": videos[0], "a.json": json.dumps(about).encode(), "a.txt": "ein Hünd\n".encode()}
    write_tar(tmp_path / "x.tar", {**one, "d/b.mp4": videos[1], "d/b.txt": b"b", "b.txt": b"another"})
    write_tar(tmp_path / "y.tar", {"c.txt": b"c", "c.mp4": videos[2], "c.cls": b"7"})
    out = tmp_path / "out.npz"
    places = [tmp_path / "x.tar", tmp_path / "3.mp4", tmp_path / "y.tar"]
    given = command(checkpoint, *places, "--sidecars", "-o", out)
    assert feature_extraction.main(given) == 0
    table = load_features(out)
    assert [Path(path).name for path in table.columns["path"]] == ["a.mp4", "b.mp4", "3.mp4", "c.mp4"]
    assert table.columns["txt"] == ["ein Hünd", "b", "", "c"]
    assert json.loads(table.columns["json"][0]) == about and table.columns["json"][1:] == ["", "", ""]
    capsys.readouterr()
    assert feature_extraction.main(given) == 0
    assert "(4 were there already)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.json": b"{"}, r"x\.tar/a\.json is no JSON"),
        ({"a.txt": b"\xff"}, r"x\.tar/a\.txt is no UTF-8"),
        ({"a.txt": bytes(2**20 + 1)}, r"x\.tar/a\.txt has 1048577 bytes"),
        ({"b.txt": b"b"}, "leave out --sidecars"),
    ],
)
def test_what_cannot_be_kept_is_named(files, expected, tmp_path):
    write_tar(tmp_path / "x.tar", {"a.mp4": b"x", **files})
    with pytest.raises(ValueError, match=expected):
        read_sidecars(find_videos([tmp_path / "x.tar"])[0])
