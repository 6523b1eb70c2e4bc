"""Zero-shot recognition: HMDB-51, UCF-101, Kinetics-400, and anyone's labelled videos.

Top-1 and top-5 accuracy, or the mean average precision where videos have several labels.

    python downstream/recognition.py --folder my_videos
    python downstream/recognition.py --dataset hmdb51 --arch TVTSv2_B_16
    python downstream/recognition.py --dataset k400 --set 'prompts=["a person {}", "{}"]'    # averaged
    python downstream/recognition.py --dataset k400 --set prompts=clip-kinetics
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize

from data_loader.dataset import VideoDataset
from data_loader.labels import ClassRecords, LabelRecords, MultiLabelRecords
from downstream.commands import run_command
from downstream.options import evaluation_parser
from downstream.prompts import prompt_templates
from downstream.protocol import EmbeddedVideos, Protocol
from downstream.report import Measurement, first_ranked, per_class
from downstream.report.trust import Statistic, alike, tied
from model.class_head import ClassHead
from model.metric import accuracy, label_ranks, sim_matrix
from utils.config import ConfigError
from utils.errors import RunError
from utils.schema import EvaluationConfig


def class_texts(dataset: VideoDataset, config: EvaluationConfig) -> list[str]:
    """Those of the first prompt for all classes, then those of the second."""
    names = dataset.records_as(ClassRecords).class_names
    if all(name.isdecimal() for name in names):
        raise ConfigError(
            f"the classes of {config.name} are numbers, {names[0]} to {names[-1]}: no text says what they "
            "are. Name a file with a class a line, --set data.classes=FILE"
        )
    return [prompt.replace("{}", name) for prompt in prompt_templates(config.prompts) for name in names]


def measure(videos: EmbeddedVideos, texts: Mapping[str, Tensor], config: EvaluationConfig) -> Measurement:
    """The class whose prompts are nearest to the video wins; logits are 100 · cosine. A classification head
    for these classes is measured, too.

    A class is the mean of its prompts' normalised embeddings. Views are averaged as by `average_views`.
    """
    names = videos.dataset.records_as(ClassRecords).class_names
    prompts = torch.stack([texts[text] for text in class_texts(videos.dataset, config)])
    prompts = rearrange(prompts, "(prompts classes) d -> prompts classes d", classes=len(names))
    classes = normalize(prompts, dim=-1).mean(dim=0)
    if videos.views is None:
        logits = 100 * sim_matrix(videos.embeds.double(), classes.double())
    else:
        of_views = 100 * sim_matrix(videos.views.flatten(0, 1).double(), classes.double())
        logits = average_views(of_views.view(*videos.views.shape[:2], -1), videos)
    measured = classification(videos, logits)
    measured.ties |= {"classes of the same embedding": alike(classes)}
    if videos.head is not None and (of_head := head_logits(videos, videos.head, names)) is not None:
        measured = with_head(measured, classification(videos, of_head))
    measured.details |= {"prompts": prompt_templates(config.prompts)}
    return measured


def average_views(logits: Tensor, videos: EmbeddedVideos) -> Tensor:
    """Logits [..., W, classes] of W views -> [..., classes]: the mean of their probabilities (softmax), or,
    where a video may have several labels, which do not compete, of the logits themselves."""
    if not isinstance(videos.dataset.records, MultiLabelRecords):
        logits = logits.softmax(dim=-1)
    return logits.mean(dim=-2)


@torch.no_grad()
def head_logits(videos: EmbeddedVideos, head: ClassHead, names: Sequence[str]) -> Tensor | None:
    """What the model's classification head says [N, classes] of the data's classes; None, with a warning,
    where its own are others.

    Views are averaged as by `average_views`.
    """
    own = {name: number for number, name in enumerate(head.class_names)}
    if other := sorted({*own} ^ {*names}):
        print(
            "warning: the checkpoint's classification head is for other classes than the data's, as "
            f"{other[0]!r} shows: its accuracy is not measured",
            file=sys.stderr,
        )
        return None
    columns = [own[name] for name in names]
    if videos.views is None:
        return head(videos.embeds)[:, columns]
    return average_views(head(videos.views), videos)[:, columns]


def with_head(zero_shot: Measurement, of_head: Measurement) -> Measurement:
    """The figures of both, the head's under own names; what is told of single videos is the head's."""
    of_head.metrics = zero_shot.metrics | {f"{way}, head": x for way, x in of_head.metrics.items()}
    of_head.statistics = zero_shot.statistics | {f"{way}, head": x for way, x in of_head.statistics.items()}
    of_head.ties = zero_shot.ties | {f"{what}, head": n for what, n in of_head.ties.items()}
    of_head.notes = "single videos and classes: by the classification head"
    return of_head


def classification(videos: EmbeddedVideos, logits: Tensor) -> Measurement:
    """What logits [videos, classes], on the CPU, say of labelled videos: accuracy, and each one's class."""
    if isinstance(videos.dataset.records, MultiLabelRecords):
        return multi_label(videos, videos.dataset.records, logits)
    names, labels = videos.dataset.records_as(LabelRecords).class_names, videos.labels
    ranks = label_ranks(logits, labels)
    guesses = logits.argmax(dim=1).tolist()
    queries = [
        {"video": video, "class": names[label], "rank": rank, "predicted": names[guess]}
        for video, label, rank, guess in zip(videos.ids, labels, ranks, guesses, strict=True)
    ]
    of_rank, of_class = np.array(ranks), np.array(labels)
    of_drawn: dict[str, Statistic] = {
        "accuracy": lambda drawn: accuracy(of_rank[drawn]),
        "mean of classes": lambda drawn: mean_of_classes(of_rank[drawn], of_class[drawn]),
    }
    metrics = {name: {"plain": of(np.arange(len(ranks)))} for name, of in of_drawn.items()}
    statistics = {name: {"plain": (of, len(ranks))} for name, of in of_drawn.items()}
    counts = {"videos": len(queries), "classes": len(names)}
    ties = {"tied videos": tied(logits.double(), labels)}
    details = {"per_class": per_class(queries)}
    return Measurement(metrics, queries, counts, details, statistics=statistics, ties=ties)


def mean_of_classes(ranks: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The mean of the accuracies of the classes that there are, of ranks from 1 and labels [N]."""
    videos = np.bincount(labels)
    found = {}
    for k in (1, 5):
        hits = np.bincount(labels, weights=ranks <= k)
        found[f"top{k}"] = 100 * float((hits[videos > 0] / videos[videos > 0]).mean())
    return found


def average_precision(targets: np.ndarray, logits: Tensor) -> list[float]:
    """In percent, of each class of targets, bool [N, classes], ranked by logits [N, classes] on the CPU; NaN
    for a class of no video. Videos of no class do not count."""
    from sklearn.metrics import average_precision_score  # its import takes a second

    labelled = np.flatnonzero(targets.any(axis=1))
    columns = zip(targets[labelled].T, logits.double().numpy()[labelled].T, strict=True)
    return [100 * float(average_precision_score(c, s)) if c.any() else float("nan") for c, s in columns]


def multi_label(videos: EmbeddedVideos, records: MultiLabelRecords, logits: Tensor) -> Measurement:
    """Mean average precision: each class ranks the videos.

    As Charades' own script has it, videos of no class do not count, nor do classes of no video.
    """
    targets = records.targets[videos.indices]
    labelled = np.flatnonzero(targets.any(axis=1))
    numbers = targets.sum(axis=0)
    rows = [
        {"name": name, "videos": int(number), "AP": value}
        for name, number, value in zip(
            records.class_names, numbers, average_precision(targets, logits), strict=True
        )
        if number
    ]
    if not rows:
        raise RunError("none of the videos that could be read has a label")
    names = records.class_names
    queries = [
        {
            "video": video,
            "classes": [names[i] for i in np.flatnonzero(target)],
            "top": first_ranked(scores, names),
        }
        for video, target, scores in zip(videos.ids, targets, logits, strict=True)
    ]
    counts = {
        "videos": len(labelled),
        "unlabelled videos": len(targets) - len(labelled),
        "classes": len(rows),
        "empty classes": len(names) - len(rows),
    }
    metrics = {"average precision": {"plain": {"mAP": float(np.mean([row["AP"] for row in rows]))}}}
    mean = mean_average_precision(targets[labelled], logits.double().numpy()[labelled])
    statistics = {"average precision": {"plain": (mean, len(labelled))}}
    counts = {what: n for what, n in counts.items() if n}
    return Measurement(metrics, queries, counts, {"per_class": rows}, statistics=statistics)


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> Statistic:
    """A function of places [N] that gives the mAP of the videos there, each maybe several times.

    targets: bool, scores: float [N, classes]. All classes are sorted once, so that a draw takes milliseconds.
    Videos of one score count together, as in `average_precision`.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    hit = np.take_along_axis(targets, order, axis=0)
    ranked = np.take_along_axis(scores, order, axis=0)
    places = np.arange(len(order))[:, None]
    ends = np.where(np.diff(ranked, axis=0, append=-np.inf) != 0, places, len(order))
    last = np.minimum.accumulate(ends[::-1], axis=0)[::-1]  # of those with the score of each

    def of_drawn(drawn: np.ndarray) -> dict[str, float]:
        times = np.bincount(drawn, minlength=len(order))[order]
        hits = times * hit
        found, seen = (np.take_along_axis(x.cumsum(axis=0), last, axis=0) for x in (hits, times))
        precision = found / np.maximum(seen, 1)
        total = hits.sum(axis=0)
        there = total > 0
        return {"mAP": 100 * float(((hits * precision).sum(axis=0)[there] / total[there]).mean())}

    return of_drawn


PROTOCOL = Protocol("recognition", "recognition", ClassRecords, measure, class_texts, each_view=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser("python downstream/recognition.py", __doc__)
    return run_command(parser.parse_args(argv), [PROTOCOL])


if __name__ == "__main__":
    sys.exit(main())
