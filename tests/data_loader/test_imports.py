"""Importing one module of data_loader does not import all others."""

import subprocess
import sys


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_frame_choice_needs_neither_pytorch_nor_a_reader():
    assert not {"torch", "av", "data_loader.dataset"} & modules_after("import data_loader.sampling")


def test_data_sets_are_imported_when_they_are_asked_for():
    sets = {"captions", "labels", "msrvtt", "multiple_choice", "shards", "yttemporal"}
    loaded = modules_after("from data_loader import build_dataset")
    assert "data_loader.registry" in loaded
    assert not {f"data_loader.{name}" for name in sets} & loaded
