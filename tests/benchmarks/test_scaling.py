"""The scaling benchmark in a tiny form, through two gloo processes."""

import json

import pytest

from benchmarks import scaling

TINY = ["--arch", "TVTSv2_Demo", "--batch-size", "2", "--frames", "3", "--rounds", "1", "--steps", "1"]


@pytest.mark.heavy
def test_figures_of_one_and_two_processes_of_sharded_training(tmp_path, capsys):
    file = tmp_path / "figures.json"
    arguments = [*TINY, "--device", "cpu", "--engine", "fsdp", "--gather", "lean", "--gpus", "2,1"]
    assert scaling.main([*arguments, "--json", str(file)]) == 0
    [[two, one]] = json.loads(file.read_text())["tables"].values()
    assert (one["gpus"], two["gpus"], one["efficiency"]) == (1, 2, 1.0)
    for row in (one, two):
        assert row["clips_per_s"] == pytest.approx(2e3 * row["gpus"] / row["ms_per_step"], rel=1e-2)
    assert two["efficiency"] == pytest.approx(two["clips_per_s"] / 2 / one["clips_per_s"], rel=1e-2)
    assert two["loss"] > one["loss"]  # among twice as many clips the right one is harder to tell
    assert "efficiency" in capsys.readouterr().out
