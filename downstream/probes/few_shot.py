"""Few-shot classification on the frozen video tower: k training videos a class, drawn several times.

The classifier is the strong plain one of "Rethinking few-shot image classification" (arXiv 2003.11539): a
logistic regression on embeddings of unit length, with the weight decay of scikit-learn's default.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_loader.labels import LabelRecords
from downstream.embedding.embedder import exact_float32
from downstream.linear_probe import fit, probe_counts
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.recognition import classification
from downstream.report import Measurement, draw_table
from downstream.report.trust import Statistic
from utils.errors import RunError
from utils.schema import EvaluationConfig
from utils.text import counted


def draw(labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """The places of `shots` samples of each class, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed)
    of_class: dict[int, list[int]] = {}
    for place in torch.randperm(len(labels), generator=generator).tolist():
        members = of_class.setdefault(labels[place], [])
        if len(members) < shots:
            members.append(place)
    return sorted(place for members in of_class.values() for place in members)


def classify(train: Tensor, labels: Tensor, test: Tensor, num_classes: int) -> Tensor:
    """Logits [M, classes], on the CPU, of test [M, D] from train [N, D] with int64 labels [N]."""
    with exact_float32():
        weights = fit(normalize(train, dim=-1), labels, num_classes, penalty=1 / len(train))
        return (normalize(test, dim=-1) @ weights[:-1] + weights[-1]).cpu()


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """Mean and deviation of the accuracy over the draws, for each of the config's numbers of shots.

    What is told of single videos is the first draw's of the first number.
    """
    names, labels = test.dataset.records_as(LabelRecords).class_names, train.labels
    per_class = {name: labels.count(i) for i, name in enumerate(names) if i in set(test.labels)}
    fewest = min(per_class, key=lambda name: per_class[name])
    possible = [k for k in config.probe.shots if k <= per_class[fewest]]
    if not possible:
        raise RunError(
            f"the class {fewest!r} has {counted(per_class[fewest], 'training videos')}, fewer than any "
            f"of the numbers of shots, {config.probe.shots}: --set 'probe.shots=[…]'"
        )
    x, y = train.embeds.to(test.device), torch.tensor(labels, device=test.device)
    firsts, metrics, details, rows = [], {}, {}, []
    statistics: dict[str, dict[str, tuple[Statistic, int]]] = {}
    for shots in possible:
        found = []
        for seed in range(config.probe.draws):
            chosen = draw(labels, shots, seed)
            logits = classify(x[chosen], y[chosen], test.embeds.to(test.device), len(names))
            measured = classification(test, logits)
            firsts.append(measured)
            found.append(measured.metrics["accuracy"]["plain"])
        mean = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        top1 = torch.tensor([one["top1"] for one in found])
        spread = float(top1.std(correction=1)) if len(found) > 1 else 0.0
        metrics[f"{counted(shots, 'videos')} a class"] = {"plain": mean}
        of_draws = [one.statistics["accuracy"]["plain"][0] for one in firsts[-len(found) :]]
        statistics[f"{counted(shots, 'videos')} a class"] = {"plain": (mean_of(of_draws), len(test.indices))}
        details[str(shots)] = {"top1": top1.tolist(), "deviation": spread}
        rows.append((counted(shots, "videos"), [f"{mean['top1']:.1f}", f"{spread:.1f}"]))
    left_out = [k for k in config.probe.shots if k not in possible]
    notes = draw_table(["top-1, mean", "deviation"], rows)
    notes += f"\nover {counted(config.probe.draws, 'draws')}"
    if left_out:
        notes += f"; without {left_out}: {fewest!r} has {counted(per_class[fewest], 'training videos')}"
    counts = probe_counts(train, test)
    first = firsts[0]
    first.metrics, first.counts, first.notes, first.statistics = metrics, counts, notes, statistics
    first.details |= {"draws": details}
    return first


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of the metrics of several classifiers, on the same videos."""

    def of_drawn(drawn: np.ndarray) -> dict[str, float]:
        found = [statistic(drawn) for statistic in statistics]
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]}

    return of_drawn


PROTOCOL = Protocol(
    "few_shot",
    "recognition",
    LabelRecords,
    measure,
    splits=("train", "test"),
    windows=True,
    shares="linear_probe",
)
