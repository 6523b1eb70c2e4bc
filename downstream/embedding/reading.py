"""Clips of videos, read by worker processes, as batches on the model's device."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from data_loader.handover import stack
from data_loader.loader import worker_options

PIECE_CLIPS = 8  # what a worker hands over at once
CLIPS_AHEAD = 24  # that a worker keeps ready, in pieces


def read_batches(
    dataset: Dataset,
    indices: Sequence[int],
    batch_size: int,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    num_workers: int,
    device: torch.device,
    clips_an_item: int = 1,
    finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[dict[str, Any]]:
    """The items of `indices` in batches of `batch_size`, in order, tensors on `device`.

    Workers read pieces of a batch, not whole ones: all of them are at work on the first batch, a few hundred
    videos keep them all busy to the end, and less memory lies ready.

    Args:
        collate: of some items, lists, dicts, or tensors with a row for each clip; see `join_pieces`.
        clips_an_item: how many at most, or about; the more, the fewer items lie ready.
        finish: what is left to do to "video" on the device: clips of one size, [B, T, 3, H, W], become those
            of the size that all have.
    """
    size = max(1, PIECE_CLIPS // clips_an_item) if num_workers else batch_size
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    pieces = [[batch[start : start + size] for start in range(0, len(batch), size)] for batch in batches]
    every_piece = [list(piece) for batch in pieces for piece in batch]
    loader = DataLoader(
        dataset,
        batch_sampler=every_piece,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        **worker_options(min(num_workers, len(every_piece)), math.ceil(CLIPS_AHEAD / (size * clips_an_item))),
    )
    coming = iter(loader)
    for numbers in pieces:
        batch = join_pieces([next(coming) for _ in numbers], device)
        if "video" in batch:
            runs = batch["video"] if finish is None else [finish(run) for run in batch["video"]]
            batch["video"] = torch.cat(runs) if len(runs) > 1 else runs[0]
        yield batch


def collate_clips(items: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Items to be embedded, or lists of those that one read gave -> one batch.

    An item is {"video": uint8 [T, 3, S, S] or, several clips to be averaged, [W, T, 3, S, S], "valid_frames":
    int or [W] where clips may be padded, "index": i, "metadata": what a table is to say about it beside its
    vector, if anything} or, when unreadable, {"index": i, "missing": Failure}.

    Returns:
        "video", a list of uint8 [n, T, 3, H, W], each of clips that follow one another and have one size;
        "valid_frames" [sum of clips] and "clips", how many clips each item has (absent when nothing could be
        read); "index" and "metadata" of the readable items; "missing": index -> Failure.
    """
    flat = [item for read in items for item in ([read] if isinstance(read, Mapping) else read)]
    readable = [item for item in flat if "missing" not in item]
    batch: dict[str, Any] = {
        "index": [item["index"] for item in readable],
        "metadata": [item.get("metadata", {}) for item in readable],
        "missing": {item["index"]: item["missing"] for item in flat if "missing" in item},
    }
    if readable:
        clips = [item["video"] if item["video"].dim() == 5 else item["video"][None] for item in readable]
        batch["clips"] = [len(video) for video in clips]
        every_clip = (clip for video in clips for clip in video)
        batch["video"] = [stack_clips([*run]) for _, run in groupby(every_clip, lambda clip: clip.shape)]
        if "valid_frames" in readable[0]:
            valid = [torch.as_tensor(item["valid_frames"]).reshape(-1) for item in readable]
            batch["valid_frames"] = torch.cat(valid)
    return batch


def stack_clips(clips: list[torch.Tensor]) -> torch.Tensor:
    """[T, 3, H, W] of one size -> [n, T, 3, H, W]. Colours that lie last in memory, as decoders give them,
    stay there: moving them takes longer than all else that is done to a small frame here."""
    if clips[0].stride(1) == 1:
        return stack([clip.movedim(1, -1) for clip in clips]).movedim(-1, 2)
    return stack(clips)


def join_pieces(pieces: Sequence[dict[str, Any]], device: torch.device) -> dict[str, Any]:
    """One batch of pieces: lists put together, dicts united, tensors joined along their first dimension. All
    tensors go to the device.

    What a piece lacks, because nothing in it could be read, the others may have.
    """
    values: dict[str, list[Any]] = {}
    for piece in pieces:
        for key, value in piece.items():
            values.setdefault(key, []).append(value)
    return {key: _join(parts, device) for key, parts in values.items()}


def _join(parts: Sequence[Any], device: torch.device) -> Any:
    if isinstance(parts[0], torch.Tensor):
        parts = [part.to(device, non_blocking=True) for part in parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    if isinstance(parts[0], dict):
        return {key: value for part in parts for key, value in part.items()}
    values = [value for part in parts for value in part]
    return [v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for v in values]
