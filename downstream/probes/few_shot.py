"""Few-shot classification on the frozen video tower: k training videos a class, drawn several times.

The classifier is the strong plain one of "Rethinking few-shot image classification" (arXiv 2003.11539): a
logistic regression on embeddings of unit length, with the weight decay of scikit-learn's default. Where
videos have several labels, it is one of yes or no for each class.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_loader.labels import ClassRecords, MultiLabelRecords
from downstream.embedding.embedder import exact_float32
from downstream.linear_probe import fit, probe_counts, targets_of
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.recognition import classification
from downstream.report import TITLES, Measurement, draw_table
from downstream.report.trust import Statistic
from utils.errors import RunError
from utils.schema import EvaluationConfig
from utils.text import counted


def classes_of(videos: EmbeddedVideos) -> list[list[int]]:
    """The classes of each video."""
    records = videos.dataset.records
    if isinstance(records, MultiLabelRecords):
        return [np.flatnonzero(targets).tolist() for targets in records.targets[videos.indices]]
    return [[label] for label in videos.labels]


def draw(classes: Sequence[Sequence[int]], shots: int, seed: int) -> list[int]:
    """The places of `shots` samples of each class, drawn without replacement.

    Samples come in a random order; one is taken where a class of its has fewer than `shots` so far. With
    several labels a sample, classes that come along with others may so have more.

    Args:
        classes: those of each sample.
    """
    generator = torch.Generator().manual_seed(seed)
    taken: Counter[int] = Counter()
    drawn = []
    for place in torch.randperm(len(classes), generator=generator).tolist():
        if any(taken[label] < shots for label in classes[place]):
            taken.update(classes[place])
            drawn.append(place)
    return sorted(drawn)


def classify(train: Tensor, targets: Tensor, test: Tensor, num_classes: int) -> Tensor:
    """Logits [M, classes], on the CPU, of test [M, D] from train [N, D] with targets as of `targets_of`."""
    with exact_float32():
        weights = fit(normalize(train, dim=-1), targets, num_classes, penalty=1 / len(train))
        return (normalize(test, dim=-1) @ weights[:-1] + weights[-1]).cpu()


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """Mean and deviation of the accuracy, or mAP, over the draws, for each of the config's numbers of shots.

    What is told of single videos is the first draw's of the first number.
    """
    names, classes = test.dataset.records_as(ClassRecords).class_names, classes_of(train)
    numbers, tested = Counter(chain.from_iterable(classes)), {*chain.from_iterable(classes_of(test))}
    per_class = {name: numbers[i] for i, name in enumerate(names) if i in tested}
    if not per_class:
        raise RunError("none of the test videos that could be read has a label")
    fewest = min(per_class, key=lambda name: per_class[name])
    possible = [k for k in config.probe.shots if k <= per_class[fewest]]
    if not possible:
        raise RunError(
            f"the class {fewest!r} has {counted(per_class[fewest], 'training videos')}, fewer than any "
            f"of the numbers of shots, {config.probe.shots}: --set 'probe.shots=[…]'"
        )
    x, y = train.embeds.to(test.device), targets_of(train).to(test.device)
    firsts, metrics, details, rows = [], {}, {}, []
    statistics: dict[str, dict[str, tuple[Statistic, int]]] = {}
    for shots in possible:
        found = []
        for seed in range(config.probe.draws):
            chosen = draw(classes, shots, seed)
            logits = classify(x[chosen], y[chosen], test.embeds.to(test.device), len(names))
            measured = classification(test, logits)
            firsts.append(measured)
            way = next(iter(measured.metrics))  # accuracy, or average precision
            found.append(measured.metrics[way]["plain"])
        mean = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        figure = next(iter(mean))  # top-1, or mAP
        values = torch.tensor([one[figure] for one in found])
        spread = float(values.std(correction=1)) if len(found) > 1 else 0.0
        metrics[f"{counted(shots, 'videos')} a class"] = {"plain": mean}
        of_draws, counts = zip(*(one.statistics[way]["plain"] for one in firsts[-len(found) :]), strict=True)
        statistics[f"{counted(shots, 'videos')} a class"] = {"plain": (mean_of(of_draws), counts[0])}
        details[str(shots)] = {figure: values.tolist(), "deviation": spread}
        rows.append((counted(shots, "videos"), [f"{mean[figure]:.1f}", f"{spread:.1f}"]))
    left_out = [k for k in config.probe.shots if k not in possible]
    notes = draw_table([f"{TITLES[figure]}, mean", "deviation"], rows)
    notes += f"\nover {counted(config.probe.draws, 'draws')}"
    if left_out:
        notes += f"; without {left_out}: {fewest!r} has {counted(per_class[fewest], 'training videos')}"
    first = firsts[0]
    first.metrics, first.counts, first.statistics = metrics, probe_counts(train, test), statistics
    first.notes = notes
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
    ClassRecords,
    measure,
    splits=("train", "test"),
    windows=True,
    shares="linear_probe",
)
