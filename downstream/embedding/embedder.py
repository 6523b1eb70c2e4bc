"""A trained model at work: texts and videos in, embeddings out, over any number of processes."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from data_loader.failures import Failure
from downstream.embedding.clips import Clip
from downstream.embedding.encoder import VideoTextModel
from downstream.embedding.reading import PIECE_CLIPS, collate_clips, read_batches
from downstream.embedding.resumable_table import ResumableTable
from downstream.embedding.token_cache import TokenCache
from downstream.feature_files import FeatureTable
from model import TVTSv2
from model.fp8 import fp8_copy
from model.metric import all_alike, check_finite
from utils.environment import bf16_instructions
from utils.errors import RunError
from utils.processes import DistContext
from utils.text import counted

PRECISIONS = ("fp32", "bf16", "fp8")
CPU_CLIPS = 2  # a forward pass: more are not faster there, and progress shows, and is saved, after each


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


def progress_bar(total: int, unit: str, context: DistContext, name: str) -> tqdm:
    """A bar with the time left and the rate, on the first process alone, for its own share."""
    share = f"process 0 of {context.world_size}" if context.world_size > 1 else ""
    described = ", ".join(filter(None, [name, share])) or None
    return tqdm(total=total, unit=unit, desc=described, disable=not (context.is_main and total))


def alike_fault(embeds: np.ndarray | torch.Tensor, noun: str) -> str | None:
    """Words for where nothing tells rows [N, D] apart: any figure of them is that of the rule for ties."""
    if not all_alike(embeds):
        return None
    return (
        f"the embeddings of all {counted(len(embeds), noun)} are the same up to rounding: ranking them says "
        "nothing. Are these the weights of a finished training, and the inputs different ones?"
    )


def warn_if_alike(embeds: np.ndarray | torch.Tensor, noun: str) -> None:
    if fault := alike_fault(embeds, noun):
        print(f"warning: {fault}", file=sys.stderr)


@dataclass
class Embedder:
    """A model with its tokenizer, its device and its speed settings.

    Args:
        model: moved to `context.device`, put into evaluation mode.
        tokenize: list of M texts -> ids [M, L].
        batch_size: clips a forward pass and process on a GPU; texts go eight times as many at once.
        precision: "fp32" (TF32 off), "bf16" (autocast), or "fp8", the same with a TVTSv2's `fp8_copy`.
        name: of what is embedded, before its bar.
        refuse_alike: embeddings that are all the same are an error, not a warning.
    """

    model: VideoTextModel
    tokenize: Callable[[list[str]], torch.Tensor]
    context: DistContext
    batch_size: int = 48
    num_workers: int = 0
    precision: str = "fp32"
    name: str = ""
    refuse_alike: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}")
        slow = self.context.device.type == "cpu" and bf16_instructions() == []
        if self.precision == "bf16" and slow and self.context.is_main:
            print(
                "warning: this processor has no bf16 instructions: --precision fp32, the default, is faster",
                file=sys.stderr,
            )
        self.model.to(self.context.device).eval()
        if self.precision == "fp8":
            if not isinstance(self.model, TVTSv2):
                raise ValueError("precision fp8 is for TVTSv2's own models; use bf16")
            self.model = fp8_copy(self.model)

    @property
    def clips_a_pass(self) -> int:
        return min(self.batch_size, CPU_CLIPS) if self.context.device.type == "cpu" else self.batch_size

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients, and the precision asked for."""
        half = self.precision != "fp32"
        autocast = torch.autocast(self.context.device.type, torch.bfloat16, enabled=half)
        with torch.inference_mode(), exact_float32(), autocast:
            yield

    def encode_clips(
        self, video: torch.Tensor, valid_frames: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Clips uint8 [B, T, 3, S, S], of which the first `valid_frames` [B] frames count (default: all), one
        pass of the model after the other.

        Yields:
            embeddings float32 [b, D], on the CPU, and tokens [b, L, D], on the device, of the next b clips.
        """
        device = self.context.device
        for start in range(0, len(video), self.clips_a_pass):
            part = slice(start, start + self.clips_a_pass)
            valid = None if valid_frames is None else valid_frames[part].to(device, non_blocking=True)
            with self.inference():
                embeds, tokens = self.model.encode_video(
                    video[part].to(device, non_blocking=True), valid_frames=valid
                )
            yield embeds.float().cpu(), tokens

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """M texts -> [M, D] on the CPU, in this process alone."""
        size = 8 * self.clips_a_pass
        embeds = []
        with self.inference():
            for start in range(0, len(texts), size):
                ids = self.tokenize(list(texts[start : start + size]))  # on the CPU, where they can be cut
                embeds.append(self.model.encode_text(ids).float().cpu())
        check_finite(torch.cat(embeds), [repr(text) for text in texts])
        return torch.cat(embeds)

    def texts(self, texts: Sequence[str], table: ResumableTable) -> FeatureTable | None:
        """Embed texts into a table, with a column "text"; shared among the processes, each text once.

        Returns:
            on the first process the rows of all `texts`, in their order.

        Raises:
            FloatingPointError: an embedding is not finite; names its text. RunError: as `refuse_alike` says.
        """
        pending = table.start([(text,) for text in texts])
        mine = [texts[i] for i in pending[self.context.rank :: self.context.world_size]]
        size = 8 * self.clips_a_pass
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            table.add(FeatureTable(self.encode_texts(part).numpy(), {"text": part}, {}))
        rows = table.finish()
        if rows is not None:
            check_finite(torch.from_numpy(rows.features), [repr(text) for text in texts])
        self._judge(rows, "texts")
        return rows

    def videos(
        self,
        dataset: Dataset,
        items: Mapping[int, int],
        clips: Sequence[Clip],
        table: ResumableTable | TokenCache,
        tokens: bool = False,
        each: bool = False,
        finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> tuple[FeatureTable | None, dict[int, Failure]]:
        """Embed the clips with which `table` was started, on each process its share.

        Args:
            dataset: gives items as `collate_clips` takes them; "index" is a place in `clips`.
            items: those of the dataset that are to be embedded, with the number of clips of each.
            tokens: keep all tokens, too, as the column "tokens" [R, L, D]; [R, W, L, D] where every item has
                W clips, more than one.
            each: keep the embeddings behind the means, too, as the column "clips" [R, W, D]; every item then
                has W clips.
            finish: as in `read_batches`.

        Returns:
            on the first process the rows of all clips that could be read, in their order; on all of them why
            the others could not, by their places.

        Raises:
            FloatingPointError: an embedding is not finite; names its video. RunError: as `refuse_alike` says.
        """
        mine = list(items)[self.context.rank :: self.context.world_size]
        most = max(items.values(), default=1)
        clips_an_item = max(most, getattr(dataset, "clips_an_item", 1))
        on_cpu = self.context.device.type == "cpu"  # there a large batch would only come late
        batches = read_batches(
            dataset,
            mine,
            max(1, (min(self.batch_size, PIECE_CLIPS) if on_cpu else self.batch_size) // clips_an_item),
            collate_clips,
            num_workers=self.num_workers,
            device=self.context.device,
            clips_an_item=clips_an_item,
            finish=finish,
        )
        missing: dict[int, Failure] = {}
        with progress_bar(
            sum(items[i] for i in mine), "clip" if most > 1 else "video", self.context, self.name
        ) as bar:
            for batch in batches:
                missing |= batch["missing"]
                bar.update(len(batch["missing"]))
                for rows in self._rows(batch, clips, tokens, each):
                    table.add(rows)
                    bar.update(len(rows))
        gathered = [item for part in self.context.gather_objects(missing) for item in part.items()]
        why = {clips[i].key: failure for i, failure in gathered}
        failures = {i: why[clip.key] for i, clip in enumerate(clips) if clip.key in why}
        found = table.finish(failures)
        if found is not None:
            check_finite(torch.from_numpy(found.features), found.columns["path"])
        self._judge(found, "windows" if found is not None and "start" in found.columns else "videos")
        return found, failures

    def _judge(self, rows: FeatureTable | None, noun: str) -> None:
        """Warn of rows, on the first process, that are all alike; or raise RunError, on all processes."""
        if not self.refuse_alike:
            if rows is not None:
                warn_if_alike(rows.features, noun)
            return
        fault = None if rows is None else alike_fault(rows.features, noun)
        if fault := self.context.broadcast_object(fault):
            raise RunError(f"{fault} Nothing is measured; name other weights with --checkpoint")

    def _rows(
        self, batch: Mapping[str, Any], clips: Sequence[Clip], tokens: bool, each: bool
    ) -> Iterator[FeatureTable]:
        """The rows of a batch of `collate_clips`, as soon as all clips of an item have been embedded."""
        if not batch["index"]:
            return
        ends = np.cumsum(batch["clips"])
        embeds, kept, first = torch.empty(0), torch.empty(0), 0
        for part, part_tokens in self.encode_clips(batch["video"], batch.get("valid_frames")):
            embeds = torch.cat([embeds, part])  # of the items from `first` on
            if tokens:
                kept = torch.cat([kept, part_tokens.float().cpu()])
            last = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + len(embeds), side="right"))
            if last == first:
                continue
            whole = batch["clips"][first:last]
            sizes = [*whole, len(embeds) - sum(whole)]
            *of_items, rest = embeds.split(sizes)
            means = torch.stack([item.mean(0) for item in of_items])
            rows = [clips[i] for i in batch["index"][first:last]]
            check_finite(means, [clip.path for clip in rows])  # now, not hours later
            columns = Clip.columns(rows)
            metadata = batch["metadata"][first:last]
            columns |= {name: np.array([values[name] for values in metadata]) for name in metadata[0]}
            if tokens:
                *of_each, kept = kept.split(sizes)
                columns["tokens"] = torch.stack(of_each).squeeze(1).numpy()
            if each:
                columns["clips"] = torch.stack(of_items).numpy()
            yield FeatureTable(means.numpy(), columns, {})
            embeds, first = rest, last
