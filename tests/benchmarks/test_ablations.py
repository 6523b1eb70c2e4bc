"""The table of ablations: its configs are ones that train.py takes, its figures those of the runs."""

import json

import pytest

from benchmarks import ablations
from utils.config import REPOSITORY, load_config
from utils.schema import PretrainingConfig


@pytest.mark.parametrize("name", ablations.ABLATIONS)
def test_each_ablation_changes_what_it_says(name):
    demo = load_config(PretrainingConfig, REPOSITORY / "configs/demo.json")
    changed = load_config(PretrainingConfig, REPOSITORY / "configs/demo.json", ablations.ABLATIONS[name])
    assert (changed == demo) == (name in ("as the demo is", "bf16"))  # its default, but not on a GPU


def test_figures_are_means_over_the_seeds(tmp_path):
    for seed, percent in enumerate((60, 70, 80)):
        folder = ablations.folder_of(tmp_path, "mask ratio 0", seed)
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps([{"task": "  sorting", "percent": percent}]))
        rows = [{"step": i, "clips_per_s": 100.0 if i >= 3 else 1.0} for i in range(6)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = ablations.row_of(tmp_path, "mask ratio 0", [0, 1, 2])
    assert row == {"name": "mask ratio 0", "sorting": "70.0 ± 10.0", "clips/s": "100"}


@pytest.mark.heavy
def test_a_failing_run_is_named_with_the_end_of_its_log(tmp_path, capsys):
    run = ["--only", "mask ratio 0", "--seeds", "7", "--scale", "0.002", "--output", str(tmp_path)]
    misspelt = ["--set", "arch.mask_ration=1"]
    with pytest.raises(RuntimeError, match=r"'mask ratio 0' with seed 7 failed(?s:.*)did you mean"):
        ablations.main([*run, *misspelt])
    with pytest.raises(SystemExit):  # runs of these options are not to be taken for those of others
        ablations.main(run)
    assert "choose another --output" in capsys.readouterr().err
