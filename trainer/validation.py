"""Validation between epochs: retrieval both ways on every set, and transcripts put in their right order."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from model.metric import sim_matrix, t2v_metrics, v2t_metrics
from trainer.signals import StopSignal
from trainer.step import to_device
from utils.processes import DistContext

logger = logging.getLogger(__name__)

REPORTED = ("R1", "R5", "R10", "MedR")


@torch.inference_mode()
def validate(
    model: nn.Module,
    loaders: Mapping[str, Any],
    context: DistContext,
    autocast: Callable[[], AbstractContextManager],
    stop: StopSignal,
) -> dict[str, float] | None:
    """Evaluate on each loader, every sample once, however many ranks share the work.

    Unreadable videos are left out and named in a warning.

    Returns:
        "<set>_t2v_R1" and the like in percent; where samples have several texts also "<set>_order_accuracy",
        in percent: the share of transcripts whose texts are all put in their right places. The same
        on every rank. None if a rank was told to stop meanwhile.
    """
    was_training = model.training
    model.eval()
    metrics: dict[str, float] = {}
    for name, loader in loaders.items():
        samples: list[tuple[int, np.ndarray, np.ndarray, bool | None]] = []
        missing: list[str] = []
        for batch in tqdm(
            loader, desc=f"validation, {name}", disable=None if context.is_main else True, leave=False
        ):
            if stop.received:
                break
            missing += map(str, batch["missing"])
            if "video" in batch:
                samples += _embed(model, batch, context.device, autocast)
        if context.sum([stop.received])[0]:
            return None
        if missing:
            logger.warning("validation, %s: left out %d unreadable videos: %s", name, len(missing), missing)
        gathered = [sample for part in context.gather_objects(samples) for sample in part]
        if not gathered:
            raise ValueError(f"validation, {name}: none of its videos can be read")
        metrics |= {f"{name}_{key}": value for key, value in _metrics(gathered).items()}
    model.train(was_training)
    return metrics


def _embed(
    model: nn.Module,
    batch: Mapping[str, Any],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> list[tuple[int, np.ndarray, np.ndarray, bool | None]]:
    """(index, text embedding [D], video embedding [D], whether the order is wholly right) of each sample."""
    with autocast():
        output = model(to_device(batch, device))
    texts, videos = output.text_embeds.float().cpu().numpy(), output.video_embeds.float().cpu().numpy()
    ordered: list[bool | None] = [None] * len(videos)
    if output.order_logits is not None:
        places = torch.arange(output.order_logits.shape[1], device=device)
        ordered = (output.order_logits.argmax(-1) == places).all(1).tolist()
    return list(zip(batch["index"].tolist(), texts, videos, ordered, strict=True))


def _metrics(samples: list[tuple[int, np.ndarray, np.ndarray, bool | None]]) -> dict[str, float]:
    samples = sorted(samples, key=lambda sample: sample[0])
    texts = torch.from_numpy(np.stack([sample[1] for sample in samples]))
    videos = torch.from_numpy(np.stack([sample[2] for sample in samples]))
    sims = sim_matrix(texts, videos).numpy()
    metrics = {}
    for way, rank in (("t2v", t2v_metrics), ("v2t", v2t_metrics)):
        ranked = rank(sims)
        metrics |= {f"{way}_{key}": float(ranked[key]) for key in REPORTED}
    ordered = [sample[3] for sample in samples if sample[3] is not None]
    if ordered:
        metrics["order_accuracy"] = 100.0 * sum(ordered) / len(ordered)
    return metrics
