"""The runs behind a table: every results.json below some folders, and how each departs from its config."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from data_loader.lists import read_json
from downstream.options import CONFIGS
from utils.config import ConfigError, convert, load_config
from utils.schema import EvaluationConfig
from utils.text import counted

# Keys of a config that say where things are and how fast it goes, but change no figure.
OF_THE_MACHINE = ("task", "name", "meta", "source", "batch_size", "num_workers", "read_timeout")
OF_ANYONE = {"labels": "labels", "csv": "captions"}  # types of own data, and the configs for them
FRAMES = 12  # of a clip, in the paper
MOST_BYTES = 2**30  # of a results.json; a million queries have less


@dataclass(frozen=True)
class Results:
    """What the table takes from a results.json."""

    task: str
    dataset: str
    arch: str
    metrics: dict[str, dict[str, dict[str, float]]]
    published: dict[str, dict[str, float]]
    counts: dict[str, int]
    failed_files: list[Any]
    checkpoint: dict[str, str]
    config: dict[str, Any]
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]] = field(default_factory=dict)
    ties: dict[str, int] = field(default_factory=dict)
    command: str = "unknown: its results are from before commands were kept"


@dataclass(frozen=True)
class Run:
    """A results.json, its number in the table, and how its config differs from that of its data set.

    data: the differences that make it another set (a cut, a fold); settings: the others.
    """

    number: int
    file: Path
    results: Results
    data: str
    settings: str

    @property
    def column(self) -> str:
        return self.results.dataset + (f" ({self.data})" if self.data else "")

    @property
    def place(self) -> str:
        """Where own data lie, which no name tells from others; published sets may move."""
        dataset, config = self.results.dataset, self.results.config
        if dataset not in OF_ANYONE.values() and (CONFIGS / f"{dataset}.json").is_file():
            return ""
        words = {"root": config.get("data", {}).get("root"), "meta": config.get("meta")}
        return ", ".join(f"{key}={value}" for key, value in words.items() if value is not None)

    @property
    def weights(self) -> str:
        return weights_of(self.results.checkpoint)

    def settings_of(self, kind: str) -> str:
        """Those that make a difference to plain or DSL figures."""
        temperature = self.results.config.get("dsl_temperature", 0.01)
        of_kind = [f"dsl_temperature={temperature:g}"] if kind == "dsl" and temperature != 0.01 else []
        return ", ".join([*filter(None, [self.settings]), *of_kind])

    @property
    def about(self) -> str:
        found = [counted(n, name) for name, n in self.results.counts.items()]
        if self.results.failed_files:
            found.append(f"WITHOUT {counted(len(self.results.failed_files), 'videos')} that cannot be read")
        found += [f"{what} {n}" for what, n in self.results.ties.items()]
        return ", ".join([*found, f"weights {self.weights}"])


def weights_of(checkpoint: Mapping[str, str]) -> str:
    return f"{Path(checkpoint['path']).name}, SHA-256 {checkpoint['sha256'][:8]}"


def would_replace(file: Path, checkpoint: Mapping[str, str], root: str | None) -> str | None:
    """What a results.json is of, if not of this checkpoint and folder of data: writing there loses it."""
    try:
        before = read_results(file)
    except (ValueError, OSError):
        return None  # there is none, or nothing that could be lost
    theirs = weights_of(before.checkpoint), before.config.get("data", {}).get("root")
    return None if theirs == (weights_of(checkpoint), root) else f"{theirs[0]}, on {theirs[1]}"


def find_results(places: Sequence[str]) -> list[Path]:
    """Every results.json at or below `places`. Raises OSError: there is none, or a folder cannot be read."""

    def closed(error: OSError) -> None:
        raise error

    found = []
    for place in map(Path, places):
        if place.is_file():
            found.append(place)
        elif not place.is_dir():
            raise FileNotFoundError(f"there is no folder or file {place}")
        for folder, _, files in os.walk(place, onerror=closed, followlinks=False):
            found += [Path(folder, name) for name in files if name == "results.json"]
    if not found:
        raise FileNotFoundError(
            f"no results.json in {', '.join(places)}; test.py and the commands of downstream/ write them"
        )
    return sorted(dict.fromkeys(found))


def read_runs(files: Sequence[Path]) -> tuple[list[Run], dict[Path, str]]:
    """The runs of some results.json, numbered from 1, and why the other files have none."""
    runs: list[Run] = []
    failed: dict[Path, str] = {}
    for file in files:
        try:
            results = read_results(file)
            data, settings = differences(results.dataset, results.config)
            runs.append(Run(len(runs) + 1, file, results, data, settings))
        except (ValueError, OSError) as error:
            failed[file] = str(error).removeprefix(f"{file}").lstrip(": ")
    return told_apart(runs), failed


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs; where own data of one name lie in several places, these make several sets of them."""
    places: dict[str, set[str]] = {}
    for run in runs:
        places.setdefault(run.column, set()).add(run.place)
    found = []
    for run in runs:
        where = run.place if len(places[run.column]) > 1 else ""
        found.append(replace(run, data=", ".join(filter(None, [run.data, where]))))
    return found


def read_results(file: Path) -> Results:
    """Raises ValueError, OSError: the file cannot be read, or is no result of an evaluation."""
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES // 2**20} MB: no result of an evaluation")
    content = read_json(file, "the results of an evaluation")
    if not isinstance(content, dict):
        raise ValueError("is no result of an evaluation, which is an object of keys and values")
    known = {name: content[name] for name in [each.name for each in fields(Results)] if name in content}
    try:
        results = convert(known, Results, "")
    except ConfigError as error:
        raise ValueError(f"is no result of an evaluation: {error}") from error
    if not results.metrics or not all("plain" in kinds for kinds in results.metrics.values()):
        raise ValueError("is no result of an evaluation: it has no plain metrics")
    data, temperature = results.config.get("data", {}), results.config.get("dsl_temperature", 0.01)
    if not isinstance(data, dict) or not isinstance(temperature, int | float):
        raise ValueError("is no result of an evaluation: its config is none")
    if not {"path", "sha256"} <= results.checkpoint.keys():
        raise ValueError("is no result of an evaluation: it does not say which checkpoint it is of")
    return results


def differences(dataset: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """How the config of a run differs from the data set's own, or where it has none from the defaults: in
    what makes it another set (a cut, a fold), and in the other settings."""
    kind = config.get("data", {}).get("type", "csv")
    path = CONFIGS / f"{dataset}.json"
    if not path.is_file() and kind in OF_ANYONE:
        path = CONFIGS / f"{OF_ANYONE[kind]}.json"
    if path.is_file():
        own = asdict(load_config(EvaluationConfig, path))
    else:
        data = {"type": kind, "root": "."}
        own = asdict(convert({"task": "retrieval", "name": "x", "data": data}, EvaluationConfig, ""))
    if own["num_frames"] is None:
        own["num_frames"] = FRAMES
    theirs = json.loads(json.dumps(config))
    data, own_data = theirs.pop("data", {}), own.pop("data")
    left_out = (*OF_THE_MACHINE, "dsl_temperature")
    of_data = _differing(data, own_data, ("root", "format"))
    return ", ".join(of_data), ", ".join(_differing(theirs, own, left_out))


def _differing(theirs: Mapping[str, Any], own: Mapping[str, Any], left_out: Sequence[str]) -> list[str]:
    """key=value of each that differs, those of sections among them."""
    words = []
    for key, value in theirs.items():
        before = own.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            words += [f"{key}.{word}" for word in _differing(value, before, ())]
        elif key not in left_out and value != before:
            words.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    return words
