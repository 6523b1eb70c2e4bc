"""Items of a data set, read by worker processes, as batches on the model's device."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from data_loader.loader import worker_options

PIECE_CLIPS = 8  # what a worker hands over at once
PIECES_AHEAD = 4  # that a worker keeps ready


def read_batches(
    dataset: Dataset,
    indices: Sequence[int],
    batch_size: int,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    num_workers: int,
    device: torch.device,
    clips_an_item: int = 1,
) -> Iterator[dict[str, Any]]:
    """The items of `indices` in batches of `batch_size`, in order, tensors on `device`.

    Workers read pieces of a batch, not whole ones: all of them are at work on the first batch, a few hundred
    videos keep them all busy to the end, and less memory lies ready.

    Args:
        collate: of some items, lists, dicts, or tensors with a row for each clip; see `join_pieces`.
        clips_an_item: how many at most.
    """
    size = max(1, PIECE_CLIPS // clips_an_item) if num_workers else batch_size
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    pieces = [[batch[start : start + size] for start in range(0, len(batch), size)] for batch in batches]
    every_piece = [piece for batch in pieces for piece in batch]
    loader = DataLoader(
        dataset,
        batch_sampler=every_piece,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        **worker_options(min(num_workers, len(every_piece)), PIECES_AHEAD),
    )
    coming = iter(loader)
    for batch in pieces:
        yield join_pieces([next(coming) for _ in batch], device)


def join_pieces(pieces: Sequence[dict[str, Any]], device: torch.device) -> dict[str, Any]:
    """One batch of pieces: lists put together, dicts united, tensors joined along their first dimension.

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
    return [value for part in parts for value in part]
