"""Features of videos and texts, as functions; downstream/feature_extraction.py is their command.

from downstream.features import extract_features, load_features
table = extract_features(["my_videos/"], "TVTSv2_B_16").table
load_features("features.safetensors").to_pandas()
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from downstream.clips import ClipDataset, find_clips
from downstream.embedder import Embedder
from downstream.encoder import load_encoder
from downstream.feature_files import FeatureTable, check_format, load_features
from downstream.inputs import find_videos
from downstream.options import check_installed, default_workers, join_processes
from downstream.resumable_table import ResumableTable
from utils.processes import DistContext

__all__ = ["Extraction", "FeatureTable", "extract_features", "extract_texts", "load_features"]

READ_TIMEOUT = 600.0  # seconds for one read of a file: one that hangs must not stop the others
READ_TOGETHER = 16  # windows of a file, see `clips.read_together`


@dataclass
class Extraction:
    """What `extract_features` gives back.

    table: the features of the videos that were asked for, with their columns, see FeatureTable; None when
        nothing could be read, and on all processes but the first.
    failed: file, or folder that cannot be entered -> why it could not be read. reused: how many rows were
        there before this call, `moved` of them for videos that now have another path.
    """

    table: FeatureTable | None
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    moved: int = 0


def extract_features(
    videos: Sequence[str | Path],
    arch: str = "TVTSv2_B_16",
    checkpoint: str | Path | None = None,
    output: str | Path | None = None,
    *,
    list_file: str | Path | None = None,
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
        videos: files, folders or patterns, and `list_file` a list of them, as `find_videos` takes them.
        checkpoint: weights; None is the released file of `arch`, where `python -m model.download` puts it.
            Clips have as many frames as these were trained with.
        output: a .safetensors, .npz or .parquet file. Rows are added to those that it has; a video already in
            it is not read again unless it changed, see ResumableTable. A call that was killed goes on where
            it was when it is made again. None writes nothing.
        window: seconds; one vector for each such piece of a video (see `clips.cut`), not one for all of it.
        tokens: also keep all tokens, "tokens" [R, L, D] (L = 1 + frames·patches, without the 1 for H/14).
        overwrite: the output is to hold the videos of this call alone.

    Raises:
        ValueError, FileNotFoundError: for wrong arguments, a reader that is not installed, and an output made
            with other settings.
        FloatingPointError: an embedding is not finite; names its video.
        RunError: another run is writing to the output.
        WriteError: the output cannot be written; what was embedded so far is kept where possible.
    """
    check_installed(reader)
    context = context or join_processes(device)
    files, failed = find_videos(videos, list_file)
    with ExitStack() as at_end:
        if output is None:
            temporary = context.broadcast_object(tempfile.mkdtemp() if context.is_main else None)
            at_end.callback(shutil.rmtree, temporary, ignore_errors=True)
            output = Path(temporary) / "features.safetensors"
        output = check_format(output, tokens)
        encoder = load_encoder(arch, None if checkpoint is None else os.fspath(checkpoint), context)
        workers = default_workers() if num_workers is None else num_workers
        embedder = Embedder(encoder.model, encoder.tokenize, context, batch_size, workers, precision)
        metadata = {
            **encoder.metadata,
            "num_frames": encoder.num_frames,
            "precision": precision,
            "reader": reader,
            "window": window,
            "tokens": tokens,
        }
        clips, unreadable = context.broadcast_object(
            find_clips(files, window, timeout) if context.is_main else None
        )
        failed |= unreadable
        keys = [clip.key for clip in clips]
        table = at_end.enter_context(ResumableTable(output, metadata, context, overwrite=overwrite))
        pending = table.start(keys)
        dataset = ClipDataset(
            clips,
            pending,
            encoder.num_frames,
            encoder.feature_transform,
            reader,
            timeout,
            min(READ_TOGETHER, batch_size),
        )
        items = {number: len(read) for number, read in enumerate(dataset.reads)}
        found, failures = embedder.videos(dataset, items, clips, table, tokens)
        failed |= {failure.path: failure.reason for failure in failures.values()}
        return Extraction(found, dict(sorted(failed.items())), len(clips) - len(pending), table.moved)


def extract_texts(
    texts: Sequence[str],
    arch: str,
    checkpoint: str | None,
    output: str | Path,
    *,
    batch_size: int = 48,
    precision: str = "fp32",
    overwrite: bool = False,
    context: DistContext,
) -> FeatureTable | None:
    """Embed texts into a file like that of `extract_features`, with a column "text".

    Returns and raises as `extract_features` does: the rows of `texts`, on the first process.
    """
    output = check_format(output)
    encoder = load_encoder(arch, checkpoint, context)
    embedder = Embedder(encoder.model, encoder.tokenize, context, batch_size, precision=precision)
    metadata = {**encoder.metadata, "precision": precision}
    with ResumableTable(output, metadata, context, overwrite=overwrite) as table:
        return embedder.texts(texts, table)
