"""k nearest neighbours on the frozen video tower, as DINOv2 evaluates (arXiv 2304.07193)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_loader.labels import ClassRecords
from downstream.linear_probe import probe_counts, targets_of, warn_of_unknown_classes
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.recognition import classification
from downstream.report import Measurement
from utils.schema import EvaluationConfig

QUERIES_AT_ONCE = 1024  # whose similarities to all training videos are in memory together


def votes(
    train: Tensor, targets: Tensor, test: Tensor, num_classes: int, ks: Sequence[int], temperature: float
) -> dict[int, Tensor]:
    """For each k, what the k nearest training videos say of each test video.

    Args:
        train: [N, D], targets: as of `targets_of`, test: [M, D]. ks: at most N each.

    Returns:
        {k: [M, classes] on the CPU}, the sum of exp(cosine / temperature) over the neighbours of a class, as
        shares of all k.
    """
    train, test = normalize(train, dim=-1), normalize(test, dim=-1)
    found: dict[int, list[Tensor]] = {k: [] for k in ks}
    for queries in test.split(QUERIES_AT_ONCE):
        cosines, neighbours = (queries @ train.T).topk(max(ks), dim=1)  # the nearest first
        of_neighbours = targets[neighbours]  # [b, k] or [b, k, classes]
        for k in ks:
            weights = (cosines[:, :k] / temperature).softmax(dim=1)
            shares = weights.new_zeros(len(queries), num_classes)
            if targets.dim() == 1:
                shares.scatter_add_(1, of_neighbours[:, :k], weights)
            else:
                shares = torch.einsum("bk,bkc->bc", weights, of_neighbours[:, :k].to(weights.dtype))
            found[k].append(shares.cpu())
    return {k: torch.cat(parts) for k, parts in found.items()}


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """Accuracy with each of the config's k, the first one's in detail; a k is at most all training videos."""
    warn_of_unknown_classes(train, test)
    ks = list(dict.fromkeys(min(k, len(train.indices)) for k in config.probe.neighbours))
    names = test.dataset.records_as(ClassRecords).class_names
    targets = targets_of(train).to(test.device)
    embeds = [x.embeds.to(test.device).double() for x in (train, test)]
    shares = votes(embeds[0], targets, embeds[1], len(names), ks, config.probe.temperature)
    measured = {k: classification(test, shares[k]) for k in ks}
    main = measured[ks[0]]
    shown = {f"{name}, k = {ks[0]}": (ks[0], name) for name in main.metrics}
    shown |= {f"{name}, k = {k}": (k, name) for k in ks[1:] for name in list(measured[k].metrics)[:1]}
    metrics = {title: measured[k].metrics[name] for title, (k, name) in shown.items()}
    statistics = {title: measured[k].statistics[name] for title, (k, name) in shown.items()}
    main.metrics, main.statistics = metrics, statistics
    main.counts = probe_counts(train, test)
    main.details |= {"k": ks, "temperature": config.probe.temperature}
    return main


PROTOCOL = Protocol(
    "knn",
    "recognition",
    ClassRecords,
    measure,
    splits=("train", "test"),
    windows=True,
    shares="linear_probe",
)
