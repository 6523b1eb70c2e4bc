"""A trained model at work: texts and videos in, embeddings out, over any number of processes."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from data_loader.collate import stack
from data_loader.failures import Failure
from downstream.cache import EmbeddingCache, file_key
from downstream.reading import read_batches
from model.metric import all_alike, check_finite
from utils.files import or_warn
from utils.processes import DistContext
from utils.text import counted

PRECISIONS = ("fp32", "bf16")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Switch TF32 off for a while: it keeps 10 bits of the mantissa, and numbers could not be compared."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def progress_bar(total: int, unit: str, context: DistContext) -> tqdm:
    """A bar with the time left and the rate, on the first process alone, for its own share."""
    share = f"process 0 of {context.world_size}" if context.world_size > 1 else None
    return tqdm(total=total, unit=unit, desc=share, disable=not (context.is_main and total))


def warn_if_alike(embeds: np.ndarray | torch.Tensor, noun: str) -> None:
    """Say that nothing tells rows [N, D] apart: any figure made of them is that of the rule for ties."""
    if all_alike(embeds):
        print(
            f"warning: the embeddings of all {counted(len(embeds), noun)} are the same up to rounding: "
            "ranking them says nothing. Are these the weights of a finished training?",
            file=sys.stderr,
        )


@dataclass
class VideoEmbeddings:
    """Embeddings [V, D] float32 of videos; rows of `missing` ones (index -> Failure) are zeros."""

    embeds: torch.Tensor
    missing: dict[int, Failure] = field(default_factory=dict)

    def readable(self) -> list[int]:
        return [i for i in range(len(self.embeds)) if i not in self.missing]


@dataclass
class Embedder:
    """A model with its tokenizer, its device and its speed settings.

    Args:
        model: offers encode_video and encode_text; moved to `context.device`, put into evaluation mode.
        tokenize: list of M texts -> ids [M, 77].
        batch_size: clips a forward pass and process; texts go eight times as many at once.
        precision: "fp32" (TF32 off) or "bf16" (autocast).
        cache_dir: where embeddings are kept from call to call; None keeps none.
        fingerprint: what the model's outputs depend on; see EmbeddingCache.
    """

    model: Any
    tokenize: Callable[[list[str]], torch.Tensor]
    context: DistContext
    batch_size: int = 48
    num_workers: int = 0
    precision: str = "fp32"
    cache_dir: Path | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}")
        self.model.to(self.context.device).eval()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients, and the precision asked for."""
        bf16 = self.precision == "bf16"
        autocast = torch.autocast(self.context.device.type, torch.bfloat16, enabled=bf16)
        with torch.inference_mode(), exact_float32(), autocast:
            yield

    def encode_clips(self, video: torch.Tensor, valid_frames: torch.Tensor) -> torch.Tensor:
        """Clips uint8 [B, T, 3, S, S] with valid_frames [B] (the others are padding) -> [B, D] on the CPU."""
        embeds = []
        with self.inference():
            for clips, valid in zip(
                video.split(self.batch_size), valid_frames.split(self.batch_size), strict=True
            ):
                clips = clips.to(self.context.device, non_blocking=True)
                valid = valid.to(self.context.device, non_blocking=True)
                embeds.append(self.model.encode_video(clips, valid_frames=valid)[0].float().cpu())
        return torch.cat(embeds)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """M texts -> [M, D] on the CPU, in this process alone."""
        size = 8 * self.batch_size
        embeds = []
        with self.inference():
            for start in range(0, len(texts), size):
                ids = self.tokenize(list(texts[start : start + size]))  # on the CPU, where they can be cut
                embeds.append(self.model.encode_text(ids).float().cpu())
        return torch.cat(embeds)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """M texts -> [M, D]; shared among the processes, each distinct text embedded once."""
        unique = list(dict.fromkeys(texts))
        cache = self._cache("text", {})
        rows = self._load(cache)
        new = [text for text in unique if text not in rows]
        mine = new[self.context.rank :: self.context.world_size]
        embeds = self.encode_texts(mine) if mine else torch.empty(0)
        for part in self.context.gather_objects(dict(zip(mine, embeds, strict=True))):
            rows |= part
        embeds = torch.stack([rows[text] for text in unique])
        check_finite(embeds, [repr(text) for text in unique])
        if self.context.is_main:
            warn_if_alike(embeds, "texts")
        self._save(cache, unique, rows, changed=bool(new))
        return torch.stack([rows[text] for text in texts])

    def videos(self, dataset: Dataset, paths: Sequence[Any], **facts: Any) -> VideoEmbeddings:
        """Embed every item of `dataset`, item i being the video file `paths[i]`.

        An item is {"video": uint8 [T, 3, S, S] or, several clips to be averaged, [W, T, 3, S, S],
        "valid_frames": int or [W], "index": i} or, when unreadable, {"index": i, "missing": Failure}.
        `facts` say what else the clips depend on (number of frames, reader …), for the cache.
        """
        assert len(dataset) == len(paths), f"{len(dataset)} items for {len(paths)} videos"
        cache = self._cache("video", facts)
        rows = self._load(cache)
        keys = [file_key(path) for path in paths]
        new = [i for i, key in enumerate(keys) if key not in rows]
        fresh, missing = self._embed_new(dataset, new, paths)
        rows |= {keys[i]: row for i, row in fresh.items()}
        self._save(cache, keys, rows, changed=bool(fresh))
        if not rows:
            return VideoEmbeddings(torch.zeros(len(keys), 0), missing)
        blank = torch.zeros_like(next(iter(rows.values())))
        videos = VideoEmbeddings(torch.stack([rows.get(key, blank) for key in keys]), missing)
        check_finite(videos.embeds, paths)
        if self.context.is_main:
            warn_if_alike(videos.embeds[videos.readable()], "videos")
        return videos

    def _embed_new(
        self, dataset: Dataset, indices: Sequence[int], paths: Sequence[Any]
    ) -> tuple[dict[int, torch.Tensor], dict[int, Failure]]:
        """Embed items `indices`, each process its share; every process gets all results, in index order."""
        mine = list(indices[self.context.rank :: self.context.world_size])
        batches = read_batches(
            dataset,
            mine,
            self.batch_size,
            collate_clips,
            num_workers=self.num_workers,
            device=self.context.device,
        )
        rows: dict[int, torch.Tensor] = {}
        missing: dict[int, Failure] = {}
        with progress_bar(len(mine), "video", self.context) as bar:
            for batch in batches:
                missing |= batch["missing"]
                if batch["index"]:
                    embeds = self.encode_clips(batch["video"], batch["valid_frames"])
                    means = torch.stack([clips.mean(0) for clips in embeds.split(batch["clips"])])
                    check_finite(means, [paths[i] for i in batch["index"]])  # now, not hours later
                    rows |= zip(batch["index"], means, strict=True)
                bar.update(len(batch["index"]) + len(batch["missing"]))
        gathered = self.context.gather_objects((rows, missing))
        rows = {i: row for part, _ in gathered for i, row in part.items()}
        missing = {i: failure for _, part in gathered for i, failure in part.items()}
        return dict(sorted(rows.items())), dict(sorted(missing.items()))

    def _cache(self, kind: str, facts: Mapping[str, Any]) -> EmbeddingCache | None:
        if self.cache_dir is None:
            return None
        fingerprint = {"format": 1, "precision": self.precision, **self.fingerprint, **facts}
        return EmbeddingCache(Path(self.cache_dir) / f"{kind}_embeddings.safetensors", fingerprint)

    def _load(self, cache: EmbeddingCache | None) -> dict[str, torch.Tensor]:
        """The cached rows, as rank 0 sees them, so that all processes agree on what is left to do."""
        rows = cache.load() if cache and self.context.is_main else {}
        return self.context.broadcast_object(rows)

    def _save(
        self,
        cache: EmbeddingCache | None,
        keys: Sequence[str],
        rows: Mapping[str, torch.Tensor],
        changed: bool,
    ) -> None:
        if cache and changed and self.context.is_main:
            kept = [key for key in dict.fromkeys(keys) if key in rows]
            with or_warn():
                cache.save(kept, torch.stack([rows[key] for key in kept]))


def collate_clips(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Items as `Embedder.videos` describes them -> one batch.

    Returns:
        "video" uint8 [sum of clips, T, 3, S, S], "valid_frames" [sum of clips] and "clips", how many clips
        each item has (absent when nothing could be read); "index" of the readable items; "missing":
        index -> Failure.
    """
    readable = [item for item in items if "missing" not in item]
    batch: dict[str, Any] = {
        "index": [item["index"] for item in readable],
        "missing": {item["index"]: item["missing"] for item in items if "missing" in item},
    }
    if readable:
        clips = [item["video"] if item["video"].dim() == 5 else item["video"][None] for item in readable]
        batch["clips"] = [len(video) for video in clips]
        batch["video"] = stack([clip for video in clips for clip in video])
        batch["valid_frames"] = torch.cat(
            [torch.as_tensor(item["valid_frames"]).reshape(-1) for item in readable]
        )
    return batch
