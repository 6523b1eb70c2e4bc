"""The benchmark of standing still for a checkpoint, in a tiny form."""

import json

from benchmarks import checkpoints


def test_figures_of_both_ways(tmp_path, capsys):
    file, folder = tmp_path / "figures.json", tmp_path / "written"
    folder.mkdir()
    arguments = ["--arch", "TVTSv2_Demo", "--device", "cpu", "--saves", "2", "--folder", str(folder)]
    assert checkpoints.main([*arguments, "--json", str(file)]) == 0
    [[inside, beside]] = json.loads(file.read_text())["tables"].values()
    assert (inside["name"], beside["name"]) == ("in its way", "beside it")
    assert inside["gib"] == beside["gib"] > 0
    assert all(row["stands_s"] > 0 for row in (inside, beside))
    assert "stands_s" in capsys.readouterr().out
    assert not list(folder.iterdir())
