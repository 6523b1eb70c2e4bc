"""One optimiser step: forward, both losses, backward, clipping, update; in one piece or in micro-batches."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model import ModelOutput
from model.loss import sort_loss
from model.text_encoder import cut_to_longest
from trainer.engine import DataParallel, FullyShardedDataParallel
from trainer.gather import contrastive_loss
from trainer.precision import Precision
from utils.processes import DistContext
from utils.schema import PretrainingConfig

# What the model reads of a batch, beside the texts.
VIDEO_INPUTS = ("video", "keep_ind", "valid_frames")


class TrainStep:
    """Trains the engine's model on one batch a call.

    With `trainer.accumulate` of N > 1, a rank's batch goes through the model in N parts, one after the
    other, so that the activations of one part alone are in memory, and yet the contrastive loss compares all
    samples of all ranks: a first pass without gradients embeds every part, the loss on all embeddings gives
    their gradients, and a second pass carries those on into the weights (GradCache, arXiv 2101.06983). It
    costs a second forward. The sorting loss is a mean over samples and needs no more than the right weights.
    The model has no dropout and masks come with the batch, so both passes see the same. Nothing but rounding
    differs from N = 1.

    Args:
        engine: holds the model.
        optimizer, scheduler: over the engine's parameters; the schedule steps once a call.
        scaler: of the precision.
        config: `loss`, `optimizer.max_grad_norm` and `trainer.accumulate` are read.
    """

    def __init__(
        self,
        engine: DataParallel | FullyShardedDataParallel,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        scaler: torch.amp.GradScaler,
        precision: Precision,
        context: DistContext,
        config: PretrainingConfig,
    ):
        self.engine, self.context, self.precision = engine, context, precision
        self.optimizer, self.scheduler, self.scaler = optimizer, scheduler, scaler
        self.loss, self.max_grad_norm = config.loss, config.optimizer.max_grad_norm
        self.parts = config.trainer.accumulate

    def __call__(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Train on this rank's batch, which is on the device.

        Returns:
            The losses over all ranks, detached, "loss" being their sum, and the norm of the whole gradient
            before clipping. Nothing is read back, so the device is not waited for.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(batch) if self.parts == 1 else self._backward_in_parts(batch)
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(self.engine.model, self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        averaged = self.context.mean(torch.stack([loss.detach() for loss in losses.values()]))
        return {**dict(zip(losses, averaged, strict=True)), "loss": averaged.sum()}, grad_norm

    def _backward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        with self.precision.autocast():
            output = self.engine(batch)
        losses = {"contrastive": self._contrastive(output.video_embeds, output.text_embeds)}
        if output.order_logits is not None:
            losses["sorting"] = self._sorting(output)
        self.scaler.scale(sum(losses.values())).backward()
        return losses

    def _backward_in_parts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        B, parts = len(batch["video"]), split_batch(batch, self.parts)
        with torch.no_grad(), self.precision.autocast():
            cached = [self.engine.model(part, sort=False) for part in parts]
        video = torch.cat([out.video_embeds.float() for out in cached]).requires_grad_()
        text = torch.cat([out.text_embeds.float() for out in cached]).requires_grad_()
        losses = {"contrastive": self._contrastive(video, text)}
        self.scaler.scale(losses["contrastive"]).backward()

        sizes = [len(part["video"]) for part in parts]
        gradients = zip(video.grad.split(sizes), text.grad.split(sizes), strict=True)
        for i, (part, part_gradients) in enumerate(zip(parts, gradients, strict=True)):
            with self.engine.synchronising(i == len(parts) - 1):
                with self.precision.autocast():
                    output = self.engine(part)
                roots = [output.video_embeds.float(), output.text_embeds.float()]
                if output.order_logits is None:
                    torch.autograd.backward(roots, list(part_gradients))
                    continue
                sorting = self._sorting(output) * (sizes[i] / B)
                losses["sorting"] = losses.get("sorting", 0) + sorting.detach()
                torch.autograd.backward([*roots, self.scaler.scale(sorting)], [*part_gradients, None])
        return losses

    def _contrastive(self, video: Tensor, text: Tensor) -> Tensor:
        return contrastive_loss(video, text, self.loss.temperature, self.loss.gather)

    def _sorting(self, output: ModelOutput) -> Tensor:
        return sort_loss(output.order_logits.float(), self.loss.sort_weight)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on `device`, the texts cut to the longest first: on a GPU that would wait."""
    if "text" in batch:
        batch = {**batch, "text": cut_to_longest(batch["text"])}
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


def split_batch(batch: Mapping[str, Any], parts: int) -> list[dict[str, Tensor]]:
    """The model's inputs, cut along the samples into `parts` (fewer when there are fewer samples).

    The parts differ by a sample at most. Texts [K·B, L] are clip-major, and stay so in each part.
    """
    B = len(batch["video"])
    parts = min(parts, B)
    K = len(batch["text"]) // B
    texts = batch["text"].unflatten(0, (K, B))
    ends = [B * i // parts for i in range(parts + 1)]
    return [
        {key: batch[key][a:b] for key in VIDEO_INPUTS if batch.get(key) is not None}
        | {"text": texts[:, a:b].flatten(0, 1)}
        for a, b in itertools.pairwise(ends)
    ]


def clip_gradients(model: nn.Module, max_norm: float | None) -> Tensor:
    """Scale all gradients down to a norm of `max_norm` at most (None: never). Returns the norm before.

    Of a sharded model it is the norm of the whole gradient, on every rank.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
