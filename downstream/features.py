"""Features of videos and texts, as functions; downstream/feature_extraction.py is their command.

from downstream.features import extract_features
table = extract_features(["my_videos/"], "TVTSv2_B_16").table
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from CLIP import tokenize
from downstream.clips import NUM_FRAMES, Clip, ClipDataset, collate, find_clips
from downstream.embedder import Embedder, progress_bar, warn_if_alike
from downstream.feature_files import FeatureTable, check_format, find_videos, write_features
from downstream.feature_parts import PartStore
from downstream.options import default_workers, join_processes
from downstream.reading import read_batches
from downstream.trained import load_trained
from model.metric import check_finite
from utils.processes import DistContext

READ_TIMEOUT = 600.0  # seconds for one read of a file: one that hangs must not stop the others
READ_TOGETHER = 16  # windows of a file, see `clips.read_together`


@dataclass
class Extraction:
    """What `extract_features` gives back.

    table: the features with their columns, see FeatureTable; None when nothing could be read, and on all
        processes but the first.
    failed: file -> why it could not be read. reused: how many rows were there before this call.
    """

    table: FeatureTable | None
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0


def extract_features(
    videos: Sequence[str | Path],
    arch: str = "TVTSv2_B_16",
    checkpoint: str | Path | None = None,
    output: str | Path | None = None,
    *,
    window: float | None = None,
    tokens: bool = False,
    batch_size: int = 48,
    num_workers: int | None = None,
    precision: str = "fp32",
    reader: str = "pyav",
    timeout: float | None = READ_TIMEOUT,
    device: str | None = None,
    overwrite: bool = False,
    context: DistContext | None = None,
) -> Extraction:
    """Embed videos, with the official preprocessing, on every process that torchrun started.

    Args:
        videos: files, folders or patterns, as `find_videos` takes them.
        checkpoint: weights; None is the released file of `arch` in the repository's root.
        output: a .safetensors, .npz or .parquet file. A call that was killed goes on where it was when it is
            made again; videos already in the file are not read again unless they changed. The file then holds
            the videos of this call and no others. None writes nothing.
        window: seconds; one vector for each such piece of a video (see `clips.cut`), not one for all of it.
        tokens: also keep all tokens, "tokens" [R, L, D] (L = 1 + 12·patches, without the 1 for H/14).

    Returns:
        Extraction. Videos that cannot be read are in `failed`, the others in the table, which only the first
        process gets.

    Raises:
        ValueError, FileNotFoundError: for wrong arguments, and for an output made with other settings.
        FloatingPointError: an embedding is not finite; names its video.
        WriteError: the output cannot be written; what was embedded so far is kept where possible.
    """
    context = context or join_processes(device)
    files = find_videos(videos)
    temporary = None
    if output is None:
        temporary = context.broadcast_object(tempfile.mkdtemp() if context.is_main else None)
        output = Path(temporary) / "features.safetensors"
    output = check_format(output, tokens)
    trained = load_trained(arch, None if checkpoint is None else os.fspath(checkpoint), context)
    embedder = Embedder(trained.model, tokenize, context, batch_size, precision=precision)
    facts = {
        "arch": arch,
        "checkpoint_sha256": trained.sha256,
        "num_frames": NUM_FRAMES,
        "precision": precision,
        "reader": reader,
        "window": window,
        "tokens": tokens,
    }
    store = PartStore(output, facts)
    try:
        finished = context.broadcast_object(store.begin(overwrite) if context.is_main else None)
        clips, failed = context.broadcast_object(find_clips(files, window) if context.is_main else None)
        pending = [clip for clip in clips if clip.key not in finished]
        most = min(READ_TOGETHER, batch_size)
        dataset = ClipDataset(pending, trained.model.image_size, reader, timeout, most)
        workers = default_workers() if num_workers is None else num_workers
        failed |= embed_clips(dataset, embedder, store, workers, tokens)
        table = store.finish([clip.key for clip in clips]) if context.is_main else None
        if table is not None:
            warn_if_alike(table.features, "clips")
        return Extraction(table, failed, reused=len(clips) - len(pending))
    finally:
        if temporary and context.is_main:
            shutil.rmtree(temporary, ignore_errors=True)


def embed_clips(
    dataset: ClipDataset, embedder: Embedder, store: PartStore, num_workers: int, tokens: bool
) -> dict[str, str]:
    """Embed this process's share of the clips, a part file a batch. Returns all processes' failures."""
    context = embedder.context
    mine = list(range(context.rank, len(dataset), context.world_size))
    clips_of_read = max(map(len, dataset.reads), default=1)
    batches = read_batches(
        dataset,
        mine,
        embedder.batch_size // clips_of_read,
        collate,
        num_workers=num_workers,
        device=context.device,
        clips_an_item=clips_of_read,
    )
    failed: dict[str, str] = {}
    with progress_bar(sum(len(dataset.reads[i]) for i in mine), "clip", context) as bar:
        for batch in batches:
            failed |= {dataset.clips[row].path: reason for row, reason in batch["failures"].items()}
            if batch["rows"]:
                clips = [dataset.clips[row] for row in batch["rows"]]
                store.add(embed_batch(batch, clips, embedder, store.facts, tokens))
            bar.update(len(batch["rows"]) + len(batch["failures"]))
    gathered = context.gather_objects(failed)
    return dict(sorted(item for part in gathered for item in part.items()))


def embed_batch(
    batch: Mapping[str, Any], clips: Sequence[Clip], embedder: Embedder, facts: dict[str, Any], tokens: bool
) -> FeatureTable:
    """One forward pass -> the rows of a part."""
    with embedder.inference():
        embeds, all_tokens = embedder.model.encode_video(batch["video"])
    check_finite(embeds, [clip.path for clip in clips])
    columns = Clip.columns(clips) | {name: np.array(batch[name]) for name in ("duration", "num_frames")}
    if tokens:
        columns["tokens"] = all_tokens.float().cpu().numpy()
    return FeatureTable(embeds.float().cpu().numpy(), columns, facts)


def extract_texts(
    texts: Sequence[str],
    arch: str,
    checkpoint: str | None,
    output: str | Path,
    *,
    batch_size: int = 48,
    precision: str = "fp32",
    context: DistContext,
) -> FeatureTable:
    """Embed texts into a file like that of `extract_features`, with a column "text"."""
    output = check_format(output)
    trained = load_trained(arch, checkpoint, context)
    embedder = Embedder(trained.model, tokenize, context, batch_size, precision=precision)
    facts = {"arch": arch, "checkpoint_sha256": trained.sha256, "precision": precision}
    table = FeatureTable(embedder.texts(texts).numpy(), {"text": list(texts)}, facts)
    if context.is_main:
        write_features(output, table)
    return table


def read_texts(given: Sequence[str]) -> list[str]:
    """The texts themselves, or the lines of a file when its name is all that is given."""
    if len(given) == 1 and os.path.isfile(given[0]):
        lines = Path(given[0]).read_text(encoding="utf-8").splitlines()
        texts = [line.strip() for line in lines if line.strip()]
        if not texts:
            raise ValueError(f"{given[0]} holds no line of text")
        return texts
    return list(given)
