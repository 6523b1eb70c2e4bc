"""The command that runs every benchmark: its lines are understood, and a failure costs no other."""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks import all as every


@pytest.mark.parametrize("name", every.BENCHMARKS)
def test_each_line_is_understood(name, capsys):
    command = every.command_of(name)
    script = next(word for word in command if word.endswith(".py"))
    arguments = command[command.index(script) + 1 :]
    benchmark = importlib.import_module(f"benchmarks.{Path(script).stem}")
    with pytest.raises(SystemExit) as end:
        benchmark.main([*arguments, "--json", "figures.json", "--help"])
    assert end.value.code == 0
    known = capsys.readouterr().out
    for argument in arguments:
        assert not argument.startswith("--") or f"{argument} " in known


@pytest.mark.heavy
def test_a_benchmark_of_several_processes_is_started_by_torchrun(tmp_path, monkeypatch):
    line = "torchrun:2 network --measure --arch TVTSv2_Demo --batch-size 2 --largest 4096 --device cpu"
    monkeypatch.setattr(every, "BENCHMARKS", {"messages": line})
    assert every.gpus_of("messages") == 2
    assert every.run("messages", tmp_path) == 0
    assert json.loads((tmp_path / "messages.json").read_text())["tables"]


@pytest.mark.heavy
def test_a_failing_benchmark_is_named_and_the_others_run(tmp_path, monkeypatch, capsys):
    bad = "train_step --arch TVTSv2_Demo --frames 99 --device cpu"
    good = "inference --arch TVTSv2_Demo --frames 2 --rounds 1 --steps 1 --device cpu --no-reference"
    monkeypatch.setattr(every, "BENCHMARKS", {"bad": bad, "good": good})
    assert every.main(["--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "bad   failed (1) after" in printed
    assert "ValueError: this TVTSv2_Demo takes 1 to" in (tmp_path / "bad.log").read_text()
    assert json.loads((tmp_path / "good.json").read_text())["tables"]


def test_names_are_chosen_by_how_they_begin(tmp_path, capsys):
    assert every.main(["--only", "eight", "four-ddp", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("left out: it needs 8 GPUs") == 7 and printed.count("left out: it needs 4 GPUs") == 4
    with pytest.raises(SystemExit):
        every.main(["--only", "nine", "--output", str(tmp_path)])
    assert "no benchmark begins with 'nine'" in capsys.readouterr().err
