"""The benchmarks of whole steps in a tiny form: they run, and their figures fit together."""

import argparse
import json

import pytest
import torch

from benchmarks import inference, train_step

TINY = ["--arch", "TVTSv2_Demo", "--batch-size", "2", "--frames", "3", "--rounds", "2", "--steps", "1"]


@pytest.mark.parametrize("benchmark", [train_step, inference])
def test_figures_of_a_tiny_run(benchmark, tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert benchmark.main([*TINY, "--device", "cpu", "--precision", "fp32", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    (ours, plain), *_ = figures["tables"].values()
    assert figures["ratio"] == pytest.approx(ours["clips_per_s"] / plain["clips_per_s"], rel=1e-2)
    for row in (ours, plain):
        assert row["clips_per_s"] == pytest.approx(2e3 / row["ms_per_step"], rel=1e-2)
    said = capsys.readouterr()
    assert "times as fast as plain eager" in said.out
    assert "ours, first steps" in said.err and "5/6 [" in said.err  # on a CPU a round may take minutes


def test_mask_ratio_that_the_model_does_not_take(capsys):
    with pytest.raises(SystemExit):
        train_step.main([*TINY, "--device", "cpu", "--no-reference", "--mask-ratio", "1.5"])
    assert "error: TVTSv2_Demo: mask_ratio=1.5, expected" in capsys.readouterr().err


def test_reference_can_be_left_out(tmp_path):
    file = tmp_path / "figures.json"
    assert train_step.main([*TINY, "--device", "cpu", "--no-reference", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert [row["name"] for rows in figures["tables"].values() for row in rows] == ["ours"]
    assert "ratio" not in figures


def test_on_a_cpu_inference_has_defaults_of_its_own_and_the_same_outputs(capsys):
    given = ["--arch", "TVTSv2_Demo", "--device", "cpu", "--rounds", "1", "--frames", "2"]
    assert inference.main(given) == 0
    said = capsys.readouterr().out
    assert "TVTSv2_Demo, batch 2, fp32" in said and "instructions for bf16: " in said
    args = argparse.Namespace(arch="TVTSv2_Demo", device="cpu", frames=2, batch_size=2, precision="fp32")
    ours, plain = (inference.build_runner(args, name, name, False).step() for name in ("auto", "sdpa"))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)
