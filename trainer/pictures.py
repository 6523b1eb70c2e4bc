"""Pictures of a validation batch for the boards: the samples that retrieval does best and worst on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from CLIP.tokenizer import words_of
from model.metric import sim_matrix

SHOWN = 3  # samples in a picture
FRAMES = 6  # of each
SIDE = 112  # pixels of a frame, at most


class Picture(NamedTuple):
    """pixels: uint8 [3, H, W], a row a sample. words: a line of each, in Markdown."""

    pixels: np.ndarray
    words: str


def best_and_worst(
    batch: Mapping[str, Any], rows: torch.Tensor, texts: torch.Tensor, videos: torch.Tensor
) -> dict[str, Picture]:
    """{"best": …, "worst": …} of a batch's samples, by the rank of its own video for each text.

    Args:
        batch: of B samples from a validation loader, on the CPU.
        rows: int64 [B], those of the batch's samples in `texts` and `videos`.
        texts, videos: embeddings [N, D] of the whole set.
    """
    sims = sim_matrix(texts[rows], videos)  # [B, N]
    own = sims.gather(1, rows[:, None])
    ranks = (sims > own).sum(1) + 1
    order = sorted(range(len(rows)), key=lambda i: (int(ranks[i]), -float(own[i])))
    return {
        "best": _picture(batch, order[:SHOWN], ranks, len(videos)),
        "worst": _picture(batch, order[::-1][:SHOWN], ranks, len(videos)),
    }


def _picture(batch: Mapping[str, Any], places: Sequence[int], ranks: torch.Tensor, size: int) -> Picture:
    B = len(batch["id"])
    lines = []
    for i in places:
        own = [words_of(ids) for ids in batch["text"][i::B].tolist()]  # texts are clip-major
        lines.append(f"- {batch['id'][i]}, rank {int(ranks[i])} of {size}: {' / '.join(own)}")
    strips = [_strip(batch["video"][i], int(batch["valid_frames"][i])) for i in places]
    return Picture(np.concatenate(strips, axis=1), "\n".join(lines))


def _strip(video: torch.Tensor, valid: int) -> np.ndarray:
    """Some frames of uint8 [T, 3, S, S], side by side: uint8 [3, s, FRAMES·s]; black where it has fewer."""
    frames = video[: max(1, valid)]
    chosen = frames[np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)]
    small = chosen[..., :: -(-video.shape[-2] // SIDE), :: -(-video.shape[-1] // SIDE)].numpy()
    strip = np.zeros((3, small.shape[-2], FRAMES * small.shape[-1]), np.uint8)
    for i, frame in enumerate(small):
        strip[:, :, i * small.shape[-1] : (i + 1) * small.shape[-1]] = frame
    return strip
