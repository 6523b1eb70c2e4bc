"""A small generated world and short training runs on it, through the real entry point."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_loader.demo import generate
from tests.trainer.runs import Starter


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The demo's data, a fortieth of it: 12 + 20 training videos."""
    root = tmp_path_factory.mktemp("world") / "demo"
    generate(root, seed=3, scale=0.025)
    return root


@pytest.fixture
def arguments(world, tmp_path):
    """Arguments of train.py for a run of a few steps that writes below tmp_path, with overrides by key."""

    def make(*flags: str, **overrides: object) -> list[str]:
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
            "trainer.save_dir": str(tmp_path),
            "trainer.device": "cpu",
            "trainer.epochs": 2,
            "trainer.validate_at_start": False,
            "trainer.validate_every": 1,
            "trainer.tensorboard": False,
            "trainer.threads": 1,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        }
        sets = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]
        return ["--config", "configs/demo.json", *flags, *(part for s in sets for part in ("--set", s))]

    return make


@pytest.fixture(scope="session")
def starter() -> Starter:
    return Starter()


@pytest.fixture
def start(starter) -> Iterator[Starter]:
    """Starts training processes; those still there at the end of a test are killed."""
    yield starter
    starter.end_all()
