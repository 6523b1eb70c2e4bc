"""Linear probe of the frozen video tower (table 4): HMDB-51, UCF-101, Kinetics-400.

Every video is embedded once, from uniform frames and the centre crop. On the embeddings, standardised by the
mean and deviation of the training set, a logistic regression is solved to its optimum for each strength of
weight decay; the strength is chosen on a tenth of the training videos, the classifier then trained on all.

    python downstream/linear_probe.py --dataset hmdb51 --arch TVTSv2_B_16
    python downstream/linear_probe.py --folder my_videos

With --sliding_window_stride S each test video is seen in several views, and their logits averaged (by
averaging the embeddings: the classifier is linear). The classifier is saved as probe.safetensors: logits =
embedding @ weight.T + bias.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from data_loader.held_out import held_out_mask
from data_loader.labels import ClassRecords, MultiLabelRecords
from downstream.commands import run_command
from downstream.embedding.embedder import exact_float32
from downstream.options import evaluation_parser
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.recognition import average_precision, classification
from downstream.report import Measurement, draw_table
from utils.errors import RunError
from utils.schema import EvaluationConfig
from utils.text import counted

PENALTIES = tuple(10.0**-k for k in (0, 1, 2, 3, 4, 5, 6))
HELD_OUT = 0.1
DATASETS = (  # those with labelled videos to train on
    *("hmdb51", "k400", "ucf101", "demo_hmdb51", "k600", "k700", "ssv2", "moments", "diving48"),
    *("charades", "labels"),
)


def fit(x: Tensor, labels: Tensor, num_classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """Multinomial logistic regression, by L-BFGS over all samples at once.

    Args:
        x: [N, D] standardised features. labels: as of `targets_of`.
        start: weights to begin with, as returned.
        penalty: the loss is the mean `classification_loss` plus penalty / 2 · the sum of the squared weights.

    Returns:
        weights [D + 1, classes], the last row the bias, which is not penalised.
    """
    weights = x.new_zeros(x.shape[1] + 1, num_classes) if start is None else start.clone()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=300, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = classification_loss(x @ weights[:-1] + weights[-1], labels)
        loss = loss + penalty / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def targets_of(videos: EmbeddedVideos) -> Tensor:
    """Their classes, int64 [N]; or, of videos with several labels, float32 [N, classes], 1 for each."""
    records = videos.dataset.records
    if isinstance(records, MultiLabelRecords):
        return torch.from_numpy(records.targets[videos.indices]).float()
    return torch.tensor(videos.labels)


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of logits [N, classes]; with several labels a video that of a classifier for
    each class, summed over them."""
    if targets.dim() == 1:
        return cross_entropy(logits, targets)
    return binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum") / len(logits)


def score(logits: Tensor, targets: Tensor) -> float:
    """Top-1 in percent; with several labels a video the mean average precision."""
    if targets.dim() == 1:
        return 100.0 * float((logits.argmax(dim=1) == targets).float().mean())
    return float(np.nanmean(average_precision(targets.bool().cpu().numpy(), logits.cpu())))


def sweep(x: Tensor, labels: Tensor, num_classes: int, held_out: Tensor) -> list[tuple[float, float]]:
    """(penalty, `score` on the samples of the mask `held_out` [N], trained on the others) for each.

    From strong to weak, each beginning where the one before ended.
    """
    results, weights = [], None
    for penalty in PENALTIES:
        weights = fit(x[~held_out], labels[~held_out], num_classes, penalty, weights)
        results.append((penalty, score(x[held_out] @ weights[:-1] + weights[-1], labels[held_out])))
    return results


def choose_held_out(names: Sequence[str], labels: Sequence[int], seed: int = 0) -> Tensor:
    """`held_out_mask` of a tenth of each class. Raises RunError where it would be empty."""
    mask = held_out_mask(names, labels, HELD_OUT, seed)
    if not mask.any():
        raise RunError(
            "no class has videos of two sources, so that none can be held out to choose the penalty"
        )
    return mask


def probe(
    train: tuple[Tensor, Tensor], test: Tensor, num_classes: int, held_out: Tensor
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Train on (features [N, D], targets as of `targets_of`), classify test features [M, D].

    Returns:
        logits [M, classes] on the CPU, the weights [D + 1, classes] for features as they are (standardising
        folded in), and what the sweep found.
    """
    mean, deviation = train[0].mean(dim=0), train[0].std(dim=0).clamp(min=1e-6)
    x = (train[0] - mean) / deviation
    with exact_float32():
        found = sweep(x, train[1], num_classes, held_out)
        penalty = max(found, key=lambda row: row[1])[0]
        weights = fit(x, train[1], num_classes, penalty)
        weight = weights[:-1] / deviation[:, None]
        bias = weights[-1] - mean @ weight
        logits = test @ weight + bias
    return logits.cpu(), torch.cat([weight, bias[None]]), {"penalty": penalty, held_out_key(train[1]): found}


def held_out_key(targets: Tensor) -> str:
    """What results call the scores on held-out videos."""
    return "held_out_top1" if targets.dim() == 1 else "held_out_mAP"


def hold_out(train: EmbeddedVideos) -> Tensor:
    """`choose_held_out`; with several labels a video, a tenth of all."""
    several = isinstance(train.dataset.records, MultiLabelRecords)
    return choose_held_out(train.ids, [0] * len(train.indices) if several else train.labels)


def probe_counts(train: EmbeddedVideos, test: EmbeddedVideos) -> dict[str, int]:
    return {
        "training videos": len(train.indices),
        "test videos": len(test.indices),
        "classes": len(test.dataset.records_as(ClassRecords).class_names),
    }


def warn_of_unknown_classes(train: EmbeddedVideos, test: EmbeddedVideos) -> None:
    """Say how many test videos no probe can get right."""
    trained, wanted = targets_of(train), targets_of(test)
    if wanted.dim() == 1:
        unknown = int((~torch.isin(wanted, trained)).sum())
    else:
        unknown = int(wanted[:, ~trained.bool().any(dim=0)].any(dim=1).sum())
    if unknown:
        print(
            f"warning: {counted(unknown, 'videos')} of {len(test.indices)} to test on are of classes that no "
            "training video has",
            file=sys.stderr,
        )


def measure(
    train: EmbeddedVideos, test: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig
) -> Measurement:
    """Choose the penalty, train on all training videos, classify the test videos."""
    warn_of_unknown_classes(train, test)
    device, targets = test.device, targets_of(train)
    logits, weights, details = probe(
        (train.embeds.to(device), targets.to(device)),
        test.embeds.to(device),
        len(test.dataset.records_as(ClassRecords).class_names),
        hold_out(train).to(device),
    )
    measured = classification(test, logits)
    measured.counts = probe_counts(train, test)
    measured.details |= details
    rows = [(f"{penalty:g}", [f"{value:.1f}"]) for penalty, value in details[held_out_key(targets)]]
    figure = "top-1" if targets.dim() == 1 else "mAP"
    measured.notes = draw_table([f"{figure} on held-out training videos"], [("weight decay", [""]), *rows])
    weight, bias = weights[:-1].T.contiguous().cpu(), weights[-1].contiguous().cpu()
    measured.tensors = {"probe": {"weight": weight, "bias": bias}}
    return measured


PROTOCOL = Protocol(
    "linear_probe", "recognition", ClassRecords, measure, splits=("train", "test"), windows=True
)


def refuse_without_labels(parser: ArgumentParser, args: Namespace) -> None:
    """End the command where --dataset has nothing to train on."""
    if args.dataset and args.dataset not in DATASETS:
        parser.error(
            f"--dataset {args.dataset}: a probe needs labelled videos, of training, too; "
            f"the data sets with these are {', '.join(DATASETS)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser("python downstream/linear_probe.py", __doc__, DATASETS)
    args = parser.parse_args(argv)
    refuse_without_labels(parser, args)
    return run_command(args, [PROTOCOL])


if __name__ == "__main__":
    sys.exit(main())
