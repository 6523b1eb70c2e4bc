"""A small generated world and short training runs on it, through the real entry point."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import train
from data_loader.demo import generate
from tests.trainer.runs import Starter


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The demo's data, a fortieth of it: 12 + 20 training videos."""
    root = tmp_path_factory.mktemp("world") / "demo"
    generate(root, seed=3, scale=0.025)
    return root


def make_arguments(world: Path, save_dir: Path, flags: Sequence[str], overrides: Mapping) -> list[str]:
    """Arguments of train.py for a short run that writes below `save_dir`, with overrides by key."""
    entries = [
        {"type": kind, "root": str(world / folder)}
        for kind, folder in (("yttemporal", "YTTemporal"), ("webvid", "WebVid"))
    ]
    settings = {
        "data.train": entries,
        "data.val": entries,
        "data.meta": str(world / "meta_data"),
        "data.batch_size": 4,
        "data.num_workers": 0,
        "trainer.save_dir": str(save_dir),
        "trainer.device": "cpu",
        "trainer.epochs": 2,
        "trainer.validate_at_start": False,
        "trainer.validate_every": 1,
        "trainer.keep_last": 3,
        "trainer.tensorboard": False,
        "trainer.threads": 1,
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }
    sets = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]
    return ["--config", "configs/demo.json", *flags, *(part for s in sets for part in ("--set", s))]


@pytest.fixture
def arguments(world, tmp_path):
    """`make_arguments` for runs that write below tmp_path."""
    return lambda *flags, **overrides: make_arguments(world, tmp_path, flags, overrides)


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory) -> Path:
    """A run of two whole epochs, validated after each: 3 joint steps each, so 12 optimiser steps."""
    folder = tmp_path_factory.mktemp("finished")
    assert train.main(make_arguments(world, folder, (), {"name": "undisturbed"})) == 0
    return folder / "undisturbed"


@pytest.fixture
def undisturbed(finished, tmp_path) -> Path:
    """A copy of the finished run to go on with."""
    return Path(shutil.copytree(finished, tmp_path / "undisturbed"))


@pytest.fixture(scope="session")
def starter() -> Starter:
    return Starter()


@pytest.fixture
def start(starter) -> Iterator[Starter]:
    """Starts training processes; those still there at the end of a test are killed."""
    yield starter
    starter.end_all()
