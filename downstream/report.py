"""Results for people (tables beside the published numbers) and for programs (results.json)."""

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from data_loader.failures import Failure
from utils.config import REPOSITORY, Config
from utils.files import whole_file, write_text
from utils.text import counted

PACKAGES = ("torch", "numpy", "decord", "av", "open_clip_torch", "safetensors")
TITLES = {
    "R1": "R@1", "R5": "R@5", "R10": "R@10", "R50": "R@50", "MedR": "MdR", "MeanR": "MnR",
    "top1": "top-1", "top5": "top-5",
}  # fmt: skip

Metrics = Mapping[str, float]


@dataclass
class Evaluation:
    """What one protocol found on one data set.

    metrics: {"text to video": {"plain": {"R1": …}, "dsl": {…}}, …}; the first one is compared with the paper.
    queries: for each caption or video its true place and what was ranked first, as plain JSON values.
    counts: how many videos, captions, classes … were evaluated.
    missing: the files that could not be read.
    details: whatever else a protocol has to tell, as plain JSON values; `notes` is that as text, for people.
    tensors: {name: {key: tensor}}, to be saved as name.safetensors.
    seconds: how long it took.
    """

    metrics: dict[str, dict[str, dict[str, float]]]
    queries: list[dict[str, Any]]
    counts: dict[str, int]
    missing: list[Failure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    tensors: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    seconds: float = 0.0


def first_ranked(scores: torch.Tensor, names: Sequence[str], most: int = 5) -> list[list[Any]]:
    """[name, score] of the highest of scores [N], best first; of equal ones the first."""
    order = scores.argsort(descending=True, stable=True)[:most].tolist()
    return [[names[i], round(float(scores[i]), 4)] for i in order]


def published(config: Config, arch: str) -> dict[str, dict[str, float]]:
    """The paper's numbers for this model and data set, {"plain": {…}, "dsl": {…}}; {} when it has none.

    A config that departs from the paper's protocol (another cut of MSR-VTT) has none.
    """
    numbers = json.loads((Path(__file__).parent / "published.json").read_text())
    dataset = numbers.get(config["task"], {}).get(config["name"], {})
    if any(config["data"].get(key) != value for key, value in dataset.get("protocol", {}).items()):
        return {}
    return dataset.get(arch, {})


def format_value(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def draw_table(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Text table: row titles on the left, cells aligned on the right."""
    lines = [("", list(columns)), *((title, list(cells)) for title, cells in rows)]
    first = max(len(title) for title, _ in lines)
    widths = [max(len(cells[i]) for _, cells in lines) for i in range(len(columns))]
    return "\n".join(
        (
            title.ljust(first) + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        ).rstrip()
        for title, cells in lines
    )


def metric_rows(
    label: str,
    metrics: Mapping[str, Metrics],
    paper: Mapping[str, Metrics],
    columns: Sequence[str],
    dsl: bool,
) -> list[tuple[str, list[str]]]:
    """Rows "ours" and "published" of one direction, then the same with DSL."""
    rows = []
    for kind, suffix in (("plain", ""), ("dsl", " †")):
        if kind not in metrics or (kind == "dsl" and not dsl):
            continue
        rows.append((f"{label}{suffix}", [format_value(metrics[kind].get(m)) for m in columns]))
        if kind in paper:
            rows.append(("  published", [format_value(paper[kind].get(m)) for m in columns]))
    return rows


def evaluation_table(evaluation: Evaluation, config: Config, arch: str, dsl: bool = False) -> str:
    """Our numbers with the published ones of that model and data set beneath them."""
    directions = list(evaluation.metrics.items())
    columns = [m for m in TITLES if m in directions[0][1]["plain"]]
    rows = []
    for i, (direction, metrics) in enumerate(directions):
        rows += metric_rows(direction, metrics, published(config, arch) if i == 0 else {}, columns, dsl)
    counts = ", ".join(counted(n, name) for name, n in evaluation.counts.items())
    lines = [f"{evaluation.notes}\n"] if evaluation.notes else []
    lines += [f"{config['name']} · {config['task'].replace('_', ' ')} · {arch} · {counts}"]
    if evaluation.missing:
        left_out = counted(len(evaluation.missing), "videos")
        lines.append(f"WITHOUT {left_out} that could not be read (--allow-missing)")
    lines.append(draw_table([TITLES[m] for m in columns], rows))
    if dsl and "dsl" in directions[0][1]:
        lines.append(f"† with the dual softmax (DSL), temperature {config['dsl_temperature']}")
    return "\n".join(lines)


def paper_tables(results: Sequence[tuple[Config, Evaluation]], arch: str) -> str:
    """Tables 2 (retrieval) and 3 (recognition, multiple choice) of the paper for one model, ours beside."""
    blocks = []
    retrieval = [(c, e) for c, e in results if c["task"] == "retrieval"]
    if retrieval:
        columns = ("R1", "R5", "R10", "MedR")
        rows = []
        for config, evaluation in retrieval:
            metrics = next(iter(evaluation.metrics.values()))
            rows += metric_rows(
                _mark(config, evaluation), metrics, published(config, arch), columns, dsl=True
            )
        blocks.append(
            f"Table 2: zero-shot text-to-video retrieval, {arch} († with DSL)\n"
            + draw_table([TITLES[m] for m in columns], rows)
        )
    accuracy = [(c, e) for c, e in results if c["task"] != "retrieval"]
    if accuracy:
        ours = [next(iter(e.metrics.values()))["plain"]["top1"] for _, e in accuracy]
        paper = [published(c, arch).get("plain", {}).get("top1") for c, _ in accuracy]
        blocks.append(
            f"Table 3: zero-shot action recognition and multiple choice, top-1, {arch}\n"
            + draw_table(
                [_mark(c, e) for c, e in accuracy],
                [
                    ("ours", [format_value(value) for value in ours]),
                    ("  published", [format_value(value) for value in paper]),
                ],
            )
        )
    if any(evaluation.missing for _, evaluation in results):
        blocks.append("* without videos that could not be read (--allow-missing)")
    return "\n\n".join(blocks)


def _mark(config: Config, evaluation: Evaluation) -> str:
    return config["name"] + ("*" if evaluation.missing else "")


def write_results(
    folder: Path, evaluation: Evaluation, config: Config, arch: str, checkpoint: Mapping[str, Any]
) -> None:
    """Everything needed to check a result, as results.json, and the evaluation's tensors beside it.

    Raises:
        WriteError: one of them cannot be written.
    """
    for name, tensors in evaluation.tensors.items():
        with whole_file(folder / f"{name}.safetensors") as unfinished:
            unfinished.write_bytes(save(tensors))
    results = {
        "task": config["task"],
        "dataset": config["name"],
        "arch": arch,
        "metrics": evaluation.metrics,
        "published": published(config, arch),
        "counts": evaluation.counts,
        "failed_files": failed_files(evaluation.missing),
        "checkpoint": checkpoint,
        "config": config,
        "seconds": round(evaluation.seconds, 2),
        "versions": versions(),
        "details": evaluation.details,
        "queries": evaluation.queries,
    }
    write_json(folder / "results.json", results)


def write_json(path: Path, value: Any) -> None:
    write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", path)


def failed_files(failures: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in failures]


def versions() -> dict[str, str | None]:
    """Python, the packages that can change a number, and the commit of this repository (None outside git)."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = None
    return found
