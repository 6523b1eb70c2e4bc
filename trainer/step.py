"""One optimiser step: forward, the losses, backward, clipping, update; whole or in micro-batches."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data.mixup import mixup_target
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from data_loader.transforms import normalize
from model import ModelOutput
from model.loss import contrastive_loss, sort_loss
from model.text_encoder import cut_to_longest
from trainer.engine import Engine, Precision
from utils.processes import DistContext
from utils.schema import PretrainingConfig

# What the model reads of a batch, beside the texts.
VIDEO_INPUTS = ("video", "keep_ind", "valid_frames")


class TrainStep:
    """Trains the engine's model on one batch a call.

    With `trainer.accumulate` of N > 1, a rank's batch goes through the model in N micro-batches, so that only
    one's activations are in memory at a time, and yet the contrastive loss compares all samples of all ranks:
    a first pass without gradients embeds every micro-batch, the loss on all embeddings gives their
    gradients, and a second pass propagates those to the weights (GradCache, arXiv 2101.06983). It costs a
    second forward. The sorting loss is a mean over samples, so that each micro-batch adds its share of it.
    The model has no dropout and masks come with the batch: both passes compute the same. The result differs
    from that of N = 1 by rounding only.

    A model with a class head is trained by the cross-entropy of its classes alone, which needs one pass.

    Args:
        engine: holds the model.
        optimizer, scheduler: over the engine's parameters; the schedule steps once a call.
        scaler: of the precision.
        config: `loss`, `optimizer.max_grad_norm` and `trainer.accumulate` are read.
    """

    def __init__(
        self,
        engine: Engine,
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
        self.micro_batches = config.trainer.accumulate

    def __call__(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Train on this rank's batch, which is on the device.

        Returns:
            The losses over all ranks, detached, "loss" being their sum, and the norm of the whole gradient
            before clipping. Both stay on the device: reading them would make the host wait for it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        backward = self._backward if self.micro_batches == 1 else self._backward_by_micro_batches
        if self.engine.model.head is not None:
            backward = self._backward_of_classes
        losses = backward(batch)
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
        losses = {"contrastive": self._contrastive(*embeddings(output))}
        total = losses["contrastive"]
        if output.order_logits is not None:
            losses["sorting"] = self._sorting(output.order_logits)
            total = total + losses["sorting"]
        self.scaler.scale(total).backward()
        return losses

    def _backward_by_micro_batches(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        B, micro_batches = len(batch["video"]), split_batch(batch, self.micro_batches)
        with torch.no_grad(), self.precision.autocast():
            cached = [embeddings(self.engine.model(each, sort=False)) for each in micro_batches]
        video, text = (torch.cat(each).requires_grad_() for each in zip(*cached, strict=True))  # [B, D]
        losses = {"contrastive": self._contrastive(video, text)}
        gradients = torch.autograd.grad(self.scaler.scale(losses["contrastive"]), (video, text))

        sizes = [len(each["video"]) for each in micro_batches]
        split = zip(*(gradient.split(sizes) for gradient in gradients), strict=True)
        for i, (micro_batch, own_gradients) in enumerate(zip(micro_batches, split, strict=True)):
            with self.engine.synchronising(i == len(sizes) - 1):
                with self.precision.autocast():
                    output = self.engine(micro_batch)
                if output.order_logits is None:
                    torch.autograd.backward(embeddings(output), own_gradients)
                    continue
                sorting = self._sorting(output.order_logits) * (sizes[i] / B)
                losses["sorting"] = losses.get("sorting", 0) + sorting.detach()
                roots = (*embeddings(output), self.scaler.scale(sorting))
                torch.autograd.backward(roots, (*own_gradients, None))
        return losses

    def _backward_of_classes(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """A mean over samples, to which each micro-batch adds its share."""
        batch, B = self._with_targets(batch), len(batch["video"])
        parts = split_batch(batch, self.micro_batches)
        total = torch.zeros((), device=batch["video"].device)
        for i, part in enumerate(parts):
            with self.engine.synchronising(i == len(parts) - 1):
                with self.precision.autocast():
                    logits = self.engine(part).class_logits
                assert logits is not None
                loss = cross_entropy(logits.float(), part["target"]) * (len(part["target"]) / B)
                self.scaler.scale(loss).backward()
            total = total + loss.detach()
        return {"classification": total}

    def _with_targets(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with the probabilities of its classes as "target" [B, classes], smoothed and mixed.

        Mixup (arXiv 1710.09412) adds to each clip the one at the mirrored place, after normalising. Frames of
        padding are zeros by then, as the model has them, so that it need not know of them.
        """
        head, share = self.engine.model.head, 1.0
        assert head is not None
        mixed = {**batch}
        if self.loss.mixup:
            alpha = torch.tensor(self.loss.mixup)
            share = float(torch.distributions.Beta(alpha, alpha).sample())
            clips, valid = normalize(batch["video"]), mixed.pop("valid_frames")  # [B, T, 3, S, S]
            is_frame = torch.arange(clips.shape[1], device=clips.device) < valid[:, None]
            clips = clips * is_frame[..., None, None, None]
            mixed["video"] = share * clips + (1 - share) * clips.flip(0)
        mixed["target"] = mixup_target(batch["label"], head.out_features, share, self.loss.label_smoothing)
        return mixed

    def _contrastive(self, video: Tensor, text: Tensor) -> Tensor:
        return contrastive_loss(video, text, self.loss.temperature, self.loss.gather)

    def _sorting(self, order_logits: Tensor) -> Tensor:
        return sort_loss(order_logits, self.loss.sort_weight)


def embeddings(output: ModelOutput) -> tuple[Tensor, Tensor]:
    """Of the videos and of the texts, [B, D] each, in float32."""
    assert output.text_embeds is not None  # training batches have texts
    return output.video_embeds.float(), output.text_embeds.float()


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on `device`.

    Texts are cut to the longest before: from a GPU, its length would have to be waited for.
    """
    if "text" in batch:
        batch = {**batch, "text": cut_to_longest(batch["text"])}
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


def without_texts(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch for a class head: labelled videos have texts of their classes, too, which are not embedded."""
    return {key: value for key, value in batch.items() if key != "text"}


def split_batch(batch: Mapping[str, Any], count: int) -> list[dict[str, Tensor]]:
    """The model's inputs in `count` micro-batches, whose sizes differ by a sample at most.

    There are fewer when there are fewer samples. Texts [K·B, L] are clip-major, as TVTSv2.forward has them,
    and stay so.
    """
    B = len(batch["video"])
    count = min(count, B)
    ends = [B * i // count for i in range(count + 1)]
    parts = [
        {key: batch[key][a:b] for key in (*VIDEO_INPUTS, "target") if batch.get(key) is not None}
        for a, b in itertools.pairwise(ends)
    ]
    if "text" in batch:
        texts = batch["text"].unflatten(0, (len(batch["text"]) // B, B))
        for part, (a, b) in zip(parts, itertools.pairwise(ends), strict=True):
            part["text"] = texts[:, a:b].flatten(0, 1)
    return parts


def clip_gradients(model: nn.Module, max_norm: float | None) -> Tensor:
    """Scale all gradients down to a norm of `max_norm` at most (None: never). Returns the norm before.

    Of a sharded model it is the norm of the whole gradient, on every rank.
    """
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return norm


def check_losses(
    rows: Sequence[Mapping[str, Any]], scaler: torch.amp.GradScaler, step: int, run_dir: Path
) -> None:
    """Raises FloatingPointError if a step's loss or gradient norm is NaN or infinite.

    A loss scaler skips such steps, the first ones as a rule, and halves its scale: that is no error until the
    scale is below 1.
    """
    bad = [row for row in rows if not math.isfinite(row["loss"] + row["grad_norm"])]
    if bad and not (scaler.is_enabled() and scaler.get_scale() >= 1):
        raise FloatingPointError(
            f"loss {bad[0]['loss']}, gradient norm {bad[0]['grad_norm']} by step {step}; the last checkpoint "
            f"in {run_dir} is intact: lower the learning rate, clip gradients (optimizer.max_grad_norm) or "
            "use trainer.precision=fp32, and --resume auto"
        )
