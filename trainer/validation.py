"""Validation between epochs: retrieval both ways and the order of transcripts, or a class head's accuracy."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from model import TVTSv2
from model.metric import (
    accuracy,
    all_alike,
    check_finite,
    in_order,
    label_ranks,
    sim_matrix,
    t2v_metrics,
    v2t_metrics,
)
from trainer.pictures import Picture, best_and_worst
from trainer.signals import StopSignal
from trainer.step import to_device, without_texts
from utils.processes import DistContext

logger = logging.getLogger(__name__)

Show = Callable[[str, Mapping[str, Picture]], None]  # a set's name, its pictures by theirs
REPORTED = ("R1", "R5", "R10", "MedR")


class Sample(NamedTuple):
    """A validation sample after the forward pass.

    position: in the validation set. text, video: embeddings [D]. ordered: whether all its texts were put into
    their places, None without a sort head. rank: with a class head, that of its class, from 1; nothing else.
    """

    position: int
    id: str
    text: np.ndarray | None = None
    video: np.ndarray | None = None
    ordered: bool | None = None
    rank: int | None = None


def metric_names(loaders: Mapping[str, Any], class_head: bool = False) -> list[str]:
    """The metrics that `validate` has for these loaders, of a model with a class head or without."""
    names = []
    for name, loader in loaders.items():
        if class_head:
            names += [f"{name}_top{k}" for k in (1, 5)]
            continue
        names += [f"{name}_{way}_{metric}" for way in ("t2v", "v2t") for metric in REPORTED]
        if loader.dataset.records.num_clips > 1:
            names.append(f"{name}_order_accuracy")
    return names


@torch.inference_mode()
def validate(
    model: TVTSv2,
    loaders: Mapping[str, Any],
    context: DistContext,
    autocast: Callable[[], AbstractContextManager],
    stop: StopSignal,
    show: Show | None = None,
) -> dict[str, float] | None:
    """Evaluate on each loader, every sample once, however many ranks share the work.

    Unreadable videos are left out and named in a warning. `show` gets the best and the worst samples of this
    rank's first batch of each set, unless a class head is evaluated.

    Returns:
        "<set>_t2v_R1" and the like in percent; where samples have several texts also "<set>_order_accuracy",
        in percent: the share of transcripts whose texts are all put in their right places. Of a model with a
        class head "<set>_top1" and "<set>_top5" alone. The same on every rank. None if a rank was told to
        stop meanwhile.

    Raises:
        FloatingPointError: an embedding holds NaN or infinity; names its sample.
    """
    was_training = model.training
    model.eval()
    metrics: dict[str, float] = {}
    for name, loader in loaders.items():
        samples: list[Sample] = []
        missing: list[str] = []
        first: dict[str, Any] = {}
        for batch in tqdm(
            loader, desc=f"validation, {name}", disable=None if context.is_main else True, leave=False
        ):
            if stop.received:
                break
            missing += map(str, batch["missing"])
            if "video" in batch:
                first = first or batch
                samples += _embed(model, batch, context.device, autocast)
        if context.sum([stop.received])[0]:
            return None
        if missing:
            logger.warning("validation, %s: left out %d unreadable videos: %s", name, len(missing), missing)
        gathered = [sample for part in context.gather_objects(samples) for sample in part]
        if not gathered:
            raise ValueError(f"validation, {name}: none of its videos can be read")
        gathered.sort(key=lambda sample: sample.position)
        ranks = [sample.rank for sample in gathered if sample.rank is not None]
        if ranks:
            own = accuracy(ranks)
        else:
            texts = torch.from_numpy(np.stack([sample.text for sample in gathered]))
            videos = torch.from_numpy(np.stack([sample.video for sample in gathered]))
            own = _metrics(texts, videos, [sample.ordered for sample in gathered], name)
            if show is not None and first:
                places = torch.tensor([sample.position for sample in gathered])
                show(name, best_and_worst(first, torch.searchsorted(places, first["index"]), texts, videos))
        logger.info("validation, %s: %s", name, "  ".join(f"{k} {v:.2f}" for k, v in own.items()))
        metrics |= {f"{name}_{key}": value for key, value in own.items()}
    model.train(was_training)
    return metrics


def _embed(
    model: TVTSv2,
    batch: Mapping[str, Any],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> list[Sample]:
    if model.head is not None:
        return _classify(model, batch, device, autocast)
    with autocast():
        output = model(to_device(batch, device))
    check_finite(output.text_embeds, batch["id"], "text embedding")
    check_finite(output.video_embeds, batch["id"], "video embedding")
    texts, videos = output.text_embeds.float().cpu().numpy(), output.video_embeds.float().cpu().numpy()
    ordered: list[bool | None] = [None] * len(videos)
    if output.order_logits is not None:
        check_finite(output.order_logits, batch["id"], "order")
        ordered = in_order(output.order_logits).tolist()
    columns = zip(batch["index"].tolist(), batch["id"], texts, videos, ordered, strict=True)
    return [Sample(*row) for row in columns]


def _classify(
    model: TVTSv2,
    batch: Mapping[str, Any],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> list[Sample]:
    with autocast():
        logits = model(to_device(without_texts(batch), device)).class_logits
    check_finite(logits, batch["id"], "classification")
    ranks = label_ranks(logits.float().cpu(), batch["label"].tolist())
    columns = zip(batch["index"].tolist(), batch["id"], ranks, strict=True)
    return [Sample(place, name, rank=rank) for place, name, rank in columns]


def _metrics(
    texts: torch.Tensor, videos: torch.Tensor, ordered: list[bool | None], name: str
) -> dict[str, float]:
    """The metrics of one set, by their names without the set's."""
    for embeds, kind in ((texts, "text"), (videos, "video")):
        if all_alike(embeds):
            logger.warning("validation, %s: all %s embeddings are alike: ranks say nothing", name, kind)
    sims = sim_matrix(texts, videos).numpy()
    metrics: dict[str, float] = {}
    for way, rank in (("t2v", t2v_metrics), ("v2t", v2t_metrics)):
        ranked = rank(sims)
        metrics |= {f"{way}_{key}": float(ranked[key]) for key in REPORTED}
    right = [each for each in ordered if each is not None]
    if right:
        metrics["order_accuracy"] = 100.0 * sum(right) / len(right)
    return metrics
