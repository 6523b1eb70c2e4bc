"""Few-shot classification on the frozen video tower: k training videos a class, drawn several times.

The classifier is the strong plain one of "Rethinking few-shot image classification" (arXiv 2003.11539): a
logistic regression on embeddings of unit length, with the weight decay of scikit-learn's default.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from data_loader.labels import ClassRecords
from downstream.embedding.embedder import exact_float32
from downstream.linear_probe import fit, probe_counts, targets_of
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.recognition import classification
from downstream.report import TITLES, Measurement, draw_table
from downstream.report.trust import Statistic
from utils.errors import RunError
from utils.schema import EvaluationConfig
from utils.text import counted


def draw(labels: Sequence[int] | Tensor, shots: int, seed: int) -> list[int]:
    """The places of `shots` samples of each class, drawn without replacement.

    labels: of N samples, or [N, classes], 1 for each class of a sample. Of these a sample is taken while one
    of its classes has too few, so that common classes come to have more.
    """
    generator = torch.Generator().manual_seed(seed)
    if not torch.is_tensor(labels):
        labels = one_hot(torch.tensor(labels))
    taken, chosen = torch.zeros(labels.shape[1], dtype=torch.int64), []
    for place in torch.randperm(len(labels), generator=generator).tolist():
        own = labels[place] > 0
        if (taken[own] < shots).any():
            taken += own
            chosen.append(place)
    return sorted(chosen)


def classify(train: Tensor, labels: Tensor, test: Tensor, num_classes: int) -> Tensor:
    """Logits [M, classes], on the CPU, of test [M, D] from train [N, D] with labels as of `targets_of`."""
    with exact_float32():
        weights = fit(normalize(train, dim=-1), labels, num_classes, penalty=1 / len(train))
        return (normalize(test, dim=-1) @ weights[:-1] + weights[-1]).cpu()


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """Mean and deviation over the draws of the accuracy, or with several labels a video of the mean average
    precision, for each of the config's numbers of shots.

    What is told of single videos is the first draw's of the first number.
    """
    names, targets = test.dataset.records_as(ClassRecords).class_names, targets_of(train)
    of_train, of_test = (as_rows(targets_of(each), len(names)) for each in (train, test))
    wanted = of_test.any(dim=0).tolist()
    per_class = {name: int(of_train[:, i].sum()) for i, name in enumerate(names) if wanted[i]}
    fewest = min(per_class, key=lambda name: per_class[name])
    possible = [k for k in config.probe.shots if k <= per_class[fewest]]
    if not possible:
        raise RunError(
            f"the class {fewest!r} has {counted(per_class[fewest], 'training videos')}, fewer than any "
            f"of the numbers of shots, {config.probe.shots}: --set 'probe.shots=[…]'"
        )
    x, y = train.embeds.to(test.device), targets.to(test.device)
    firsts, metrics, details, rows = [], {}, {}, []
    statistics: dict[str, dict[str, tuple[Statistic, int]]] = {}
    figure = "top1" if targets.dim() == 1 else "mAP"
    for shots in possible:
        found = []
        for seed in range(config.probe.draws):
            chosen = draw(of_train, shots, seed)
            logits = classify(x[chosen], y[chosen], test.embeds.to(test.device), len(names))
            measured = classification(test, logits)
            firsts.append(measured)
            found.append(next(iter(measured.metrics.values()))["plain"])
        mean = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        of_draw = torch.tensor([one[figure] for one in found])
        spread = float(of_draw.std(correction=1)) if len(found) > 1 else 0.0
        way = f"{counted(shots, 'videos')} a class"
        metrics[way] = {"plain": mean}
        of_draws = [next(iter(one.statistics.values()))["plain"] for one in firsts[-len(found) :]]
        statistics[way] = {"plain": (mean_of([of for of, _ in of_draws]), of_draws[0][1])}
        details[str(shots)] = {figure: of_draw.tolist(), "deviation": spread}
        rows.append((counted(shots, "videos"), [f"{mean[figure]:.1f}", f"{spread:.1f}"]))
    left_out = [k for k in config.probe.shots if k not in possible]
    notes = draw_table([f"{TITLES[figure]}, mean", "deviation"], rows)
    notes += f"\nover {counted(config.probe.draws, 'draws')}"
    if left_out:
        notes += f"; without {left_out}: {fewest!r} has {counted(per_class[fewest], 'training videos')}"
    counts = probe_counts(train, test)
    first = firsts[0]
    first.metrics, first.counts, first.notes, first.statistics = metrics, counts, notes, statistics
    first.details |= {"draws": details}
    return first


def as_rows(targets: Tensor, num_classes: int) -> Tensor:
    """Targets as of `targets_of` as int64 [N, classes], 1 for each class of a sample."""
    return one_hot(targets, num_classes) if targets.dim() == 1 else targets.long()


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of the metrics of several classifiers, on the same videos."""

    def of_drawn(drawn: np.ndarray) -> dict[str, float]:
        found = [statistic(drawn) for statistic in statistics]
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]}

    return of_drawn


PROTOCOL = Protocol(
    "few_shot",
    "recognition",
    ClassRecords,
    measure,
    splits=("train", "test"),
    windows=True,
    shares="linear_probe",
)
