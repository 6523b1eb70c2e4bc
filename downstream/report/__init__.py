"""Results for people (tables beside the published numbers) and for programs (results.json)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from data_loader.failures import Failure
from downstream.report.trust import Statistic
from model.metric import accuracy
from utils.environment import versions
from utils.files import whole_file, write_text
from utils.schema import EvaluationConfig
from utils.text import counted

INTERVAL = "  95 % interval"  # the title of its row
MOST_CLASSES = 20  # that a terminal lists one by one
OWN = ("csv", "labels")  # the types of anyone's data, whatever they are named
PACKAGES = ("torch", "numpy", "decord", "av", "open_clip_torch", "safetensors")
TITLES = {
    "R1": "R@1", "R5": "R@5", "R10": "R@10", "R50": "R@50", "MedR": "MdR", "MeanR": "MnR",
    "top1": "top-1", "top5": "top-5", "mAP": "mAP",
}  # fmt: skip

Metrics = Mapping[str, float]


@dataclass
class Measurement:
    """What a protocol finds out from embeddings.

    metrics: {"text to video": {"plain": {"R1": …}, "dsl": {…}}, …}; the first one is compared with the paper.
    queries: for each caption or video its true place and what was ranked first, as plain JSON values.
    counts: how many videos, captions, classes … were evaluated.
    details: whatever else there is to tell, as plain JSON values; `notes` is that as text, for people.
    tensors: {name: {key: tensor}}, to be saved as name.safetensors.
    statistics: as metrics, of each kind what trust.bootstrap takes to find the intervals of its figures.
    ties: {what: how many} of ties and duplicates, which make figures a matter of a rule, or of rounding.
    """

    metrics: dict[str, dict[str, dict[str, float]]]
    queries: list[dict[str, Any]]
    counts: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    tensors: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    statistics: dict[str, dict[str, tuple[Statistic, int]]] = field(default_factory=dict)
    ties: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """A model measured by a protocol on a data set.

    missing: the files that could not be read. seconds: how long it took. intervals: as the metrics of
    `measured`, of each figure [low, high].
    """

    protocol: str
    config: EvaluationConfig
    arch: str
    measured: Measurement
    missing: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    intervals: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    @property
    def main_metrics(self) -> dict[str, dict[str, float]]:
        """Those that the paper has, too."""
        return next(iter(self.measured.metrics.values()))

    @property
    def main_intervals(self) -> dict[str, dict[str, list[float]]]:
        return next(iter(self.intervals.values()), {})

    @property
    def mark(self) -> str:
        """The data set's name, with a star if videos are missing."""
        return self.config.name + ("*" if self.missing else "")

    @property
    def published(self) -> dict[str, dict[str, float]]:
        """The paper's numbers for this model and data set, {"plain": {…}, "dsl": {…}}; {} when it has none.

        A config that departs from the paper's protocol (another cut, fold or split, one's own list) has none.
        """
        if self.config.data.type in OWN:
            return {}
        numbers = json.loads((Path(__file__).parent / "published.json").read_text())
        dataset = numbers.get(self.protocol, {}).get(self.config.name, {})
        data = self.config.data.options()
        if any(data.get(key) != value for key, value in dataset.get("protocol", {}).items()):
            return {}
        if data.get("split") == "train" or data.get("fold", 1) != 1:
            return {}
        return dataset.get(self.arch, {})


def first_ranked(scores: torch.Tensor, names: Sequence[str], most: int = 5) -> list[list[Any]]:
    """[name, score] of the highest of scores [N], best first; of equal ones the first."""
    order = scores.argsort(descending=True, stable=True)[:most].tolist()
    return [[names[i], round(float(scores[i]), 4)] for i in order]


def per_class(queries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """{"name", "videos", "top1", "top5"} of each class that has videos, worst first."""
    ranks: dict[str, list[int]] = {}
    for query in queries:
        ranks.setdefault(query["class"], []).append(query["rank"])
    rows = [{"name": name, "videos": len(own), **accuracy(own)} for name, own in ranks.items()]
    return sorted(rows, key=lambda row: (row["top1"], row["top5"], row["name"]))


def format_value(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def format_interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.1f}–{interval[1]:.1f}"


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
    intervals: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[tuple[str, list[str]]]:
    """Rows "ours", its interval and "published" of one direction, then the same with DSL."""
    rows = []
    for kind, suffix in (("plain", ""), ("dsl", " †")):
        if kind not in metrics or (kind == "dsl" and not dsl):
            continue
        rows.append((f"{label}{suffix}", [format_value(metrics[kind].get(m)) for m in columns]))
        if kind in intervals:
            rows.append((INTERVAL, [format_interval(intervals[kind].get(m)) for m in columns]))
        if kind in paper:
            rows.append(("  published", [format_value(paper[kind].get(m)) for m in columns]))
    return rows


def evaluation_table(evaluation: Evaluation, dsl: bool = False, of_classes: bool = True) -> str:
    """Our numbers with the published ones of that model and data set beneath them; before them those of each
    class, where there are few."""
    measured, config = evaluation.measured, evaluation.config
    columns = [m for m in TITLES if m in evaluation.main_metrics["plain"]]
    rows = []
    for i, (direction, metrics) in enumerate(measured.metrics.items()):
        published = evaluation.published if i == 0 else {}
        intervals = evaluation.intervals.get(direction, {})
        rows += metric_rows(direction, metrics, published, columns, dsl, intervals)
    counts = ", ".join(counted(n, name) for name, n in measured.counts.items())
    lines = [f"{measured.notes}\n"] if measured.notes else []
    classes = measured.details.get("per_class", [])
    if of_classes and 0 < len(classes) <= MOST_CLASSES:
        titles = [key for key in classes[0] if key != "name"]
        by_class = [
            (row["name"], [str(row["videos"]), *(format_value(row[key]) for key in titles[1:])])
            for row in classes
        ]
        lines.append(draw_table([TITLES.get(key, key) for key in titles], by_class) + "\n")
    lines.append(f"{config.name} · {evaluation.protocol.replace('_', ' ')} · {evaluation.arch} · {counts}")
    if evaluation.missing:
        left_out = counted(len(evaluation.missing), "videos")
        lines.append(f"WITHOUT {left_out} that could not be read (--allow-missing)")
    lines.append(draw_table([TITLES[m] for m in columns], rows))
    if dsl and "dsl" in evaluation.main_metrics:
        lines.append(f"† with the dual softmax (DSL), temperature {config.dsl_temperature:g}")
    return "\n".join(lines)


def comparison_table(evaluations: Mapping[str, Evaluation], dsl: bool = False) -> str:
    """Models, by their names, on one data set: a table for each direction, published numbers beneath ours."""
    first = next(iter(evaluations.values()))
    columns = [m for m in TITLES if m in first.main_metrics["plain"]]
    blocks = []
    directions = dict.fromkeys(d for each in evaluations.values() for d in each.measured.metrics)
    for i, direction in enumerate(directions):
        rows = []
        for name, each in evaluations.items():
            if direction not in each.measured.metrics:  # as of a classification head, which some have
                continue
            published = each.published if i == 0 else {}
            metrics, intervals = each.measured.metrics[direction], each.intervals.get(direction, {})
            rows += metric_rows(name, metrics, published, columns, dsl, intervals)
        table = draw_table([TITLES[m] for m in columns], rows)
        blocks.append(f"{first.config.name} · {first.protocol.replace('_', ' ')} · {direction}\n{table}")
    return "\n\n".join(blocks)


def paper_tables(evaluations: Mapping[str, Sequence[Evaluation]]) -> str:
    """Tables 2 (retrieval) and 3 (recognition, multiple choice) of the paper, ours beside, for models by
    their names."""
    alone = next(iter(evaluations)) if len(evaluations) == 1 else ""
    measured = [(name, each) for name, group in evaluations.items() for each in group]
    blocks = [_retrieval_table(measured, alone), _accuracy_table(measured, alone)]
    if any(each.missing for _, each in measured):
        blocks.append("* without videos that could not be read (--allow-missing)")
    return "\n\n".join(filter(None, blocks))


def _retrieval_table(measured: Sequence[tuple[str, Evaluation]], alone: str) -> str:
    """Rows by data set, then by model; `alone` names the model if there is one. "" without retrieval."""
    retrieval = [(name, each) for name, each in measured if each.protocol == "retrieval"]
    columns = ("R1", "R5", "R10", "MedR")
    rows = []
    for data in dict.fromkeys(each.config.name for _, each in retrieval):
        for name, each in retrieval:
            if each.config.name == data:
                title = each.mark if alone else f"{each.mark}, {name}"
                metrics, intervals = each.main_metrics, each.main_intervals
                rows += metric_rows(title, metrics, each.published, columns, True, intervals)
    if not rows:
        return ""
    title = "Table 2: zero-shot text-to-video retrieval"
    table = draw_table([TITLES[m] for m in columns], rows)
    return f"{title}{alone and f', {alone}'} († with DSL)\n{table}"


def _accuracy_table(measured: Sequence[tuple[str, Evaluation]], alone: str) -> str:
    """Rows by model, a column for each data set."""
    recognised = [(name, each) for name, each in measured if each.protocol != "retrieval"]
    marks: dict[str, str] = {}  # of each data set, with its star if any model lacks videos of it
    for _, each in recognised:
        marks[each.config.name] = max(marks.get(each.config.name, ""), each.mark)
    rows = []
    for model in dict.fromkeys(name for name, _ in recognised):
        found = {each.config.name: each for name, each in recognised if name == model}
        ours = {data: each.main_metrics["plain"]["top1"] for data, each in found.items()}
        between = {data: each.main_intervals.get("plain", {}).get("top1") for data, each in found.items()}
        paper = {data: each.published.get("plain", {}).get("top1") for data, each in found.items()}
        rows.append(("ours" if alone else model, [format_value(ours.get(data)) for data in marks]))
        if any(between.values()):
            rows.append((INTERVAL, [format_interval(between.get(data)) for data in marks]))
        if alone or any(paper.values()):
            rows.append(("  published", [format_value(paper.get(data)) for data in marks]))
    if not rows:
        return ""
    title = "Table 3: zero-shot action recognition and multiple choice, top-1"
    return f"{title}{alone and f', {alone}'}\n{draw_table(list(marks.values()), rows)}"


def write_results(folder: Path, evaluation: Evaluation, checkpoint: Mapping[str, Any], command: str) -> None:
    """Everything needed to check a result, as results.json, and what else was measured beside it.

    checkpoint: which file the weights came from. command: what was called.

    Raises:
        WriteError: one of the files cannot be written.
    """
    measured = evaluation.measured
    for name, tensors in measured.tensors.items():
        with whole_file(folder / f"{name}.safetensors") as unfinished:
            unfinished.write_bytes(save(tensors))
    results = {
        "task": evaluation.protocol,
        "dataset": evaluation.config.name,
        "arch": evaluation.arch,
        "command": command,
        "metrics": measured.metrics,
        "intervals": evaluation.intervals,
        "published": evaluation.published,
        "counts": measured.counts,
        "failed_files": failed_files(evaluation.missing),
        "checkpoint": checkpoint,
        "config": asdict(evaluation.config),
        "seconds": round(evaluation.seconds, 2),
        "versions": versions(),
        "ties": {what: n for what, n in measured.ties.items() if n},
        "details": measured.details,
        "queries": measured.queries,
    }
    write_json(folder / "results.json", results)


def write_json(path: Path, value: Any) -> None:
    write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", path)


def failed_files(failures: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in failures]
