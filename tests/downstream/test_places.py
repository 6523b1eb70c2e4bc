"""Features of videos wherever they lie equal those of the files."""

import json
import tarfile

import numpy as np
import pytest

from data_loader.video import open_video, sources
from downstream import feature_extraction
from downstream.feature_files import load_features
from tests.data_loader.video.test_sources import Server
from tests.extras import extra

from .layouts import write_video
from .test_feature_extraction import command

extra("aiohttp")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "WAITS", (0.01,))
    server = Server(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def test_features_from_everywhere(server, tmp_path, checkpoint, capsys):
    from PIL import Image

    path = write_video(tmp_path / "a.mp4", seed=1)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(path, "a.mp4")
    (tmp_path / "frames").mkdir()
    with open_video(path) as video:
        for i, frame in enumerate(video.read(range(len(video)))):
            Image.fromarray(frame).save(tmp_path / f"frames/{i:05d}.png")
    places = [str(path), server.url("a.mp4"), f"{tmp_path}/x.tar/a.mp4", str(tmp_path / "frames")]
    out = tmp_path / "out.npz"
    given = command(checkpoint, path, server.url("a.mp4"), tmp_path / "x.tar", tmp_path / "frames", "-o", out)
    given += ["--folder-fps", "10", "--batch-size", "1"]
    assert feature_extraction.main([server.url("gone.mp4"), *given]) == 1
    table = load_features(out)
    assert table.columns["path"] == places and table.metadata["folder_fps"] == 10
    np.testing.assert_allclose(table.columns["duration"], [2.0] * 4)
    for row in table.features[1:]:
        np.testing.assert_array_equal(row, table.features[0])
    failed = json.loads((tmp_path / "out.npz.report.json").read_text())["failed_files"]
    assert failed == [{"path": server.url("gone.mp4"), "reason": "no such file"}]
    capsys.readouterr()
    assert feature_extraction.main(given) == 0
    assert "(4 were there already)" in capsys.readouterr().out
    (tmp_path / "list.csv").write_text(f"path,start,end\n{server.url('a.mp4')},0.5,1\n")
    spans = tmp_path / "spans.npz"
    assert feature_extraction.main(command(checkpoint, "--list", tmp_path / "list.csv", "-o", spans)) == 0
    assert load_features(spans).columns["path"] == [server.url("a.mp4")]
