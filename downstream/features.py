"""Features of videos and texts, as functions; downstream/feature_extraction.py is their command.

from downstream.features import extract_features, load_features
table = extract_features(["my_videos/"], "TVTSv2_B_16").table
load_features("features.safetensors").to_pandas()
"""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_loader.failures import Failure
from data_loader.resize import DeferredResize
from data_loader.transforms import FeatureTransform
from data_loader.video import FRAME_RATE
from downstream.embedding.clips import Clip, ClipDataset
from downstream.embedding.embedder import Embedder
from downstream.embedding.encoder import load_encoder
from downstream.embedding.resumable_table import ResumableTable
from downstream.embedding.row_keys import Key, row_keys
from downstream.embedding.shards import Shard, ShardFiles, complete_shards, read_shards
from downstream.feature_files import FeatureTable, check_format, folders, join_tables, load_features, take
from downstream.inputs import find_videos
from downstream.inputs.pieces import Cutting, find_clips
from downstream.inputs.shots import import_scenedetect
from downstream.inputs.sidecars import read_sidecars
from downstream.inputs.video_lists import TIMES, Columns, VideoList, is_table, read_video_list
from downstream.options import check_installed, default_workers, join_processes
from utils.processes import DistContext

__all__ = ["Extraction", "FeatureTable", "extract_features", "extract_texts", "load_features", "merge_shards"]

READ_TIMEOUT = 600.0  # seconds for one read of a file: one that hangs must not stop the others
READ_TOGETHER = 16  # windows of a file, see `clips.read_together`


@dataclass
class Extraction:
    """What `extract_features` gives back.

    table: the features of the videos that were asked for, with their columns, see FeatureTable; None when
        nothing could be read, and on all processes but the first.
    failed: file, or folder that cannot be entered -> why it could not be read. reused: how many rows were
        there before this call, `moved` of them for videos that now have another path. others: how many
        rows the output holds beside them.
    """

    table: FeatureTable | None
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    moved: int = 0
    others: int = 0


def extract_features(
    videos: Sequence[str | Path],
    arch: str = "TVTSv2_B_16",
    checkpoint: str | Path | None = None,
    output: str | Path | None = None,
    *,
    one_file_each: bool = False,
    list_file: str | Path | None = None,
    sidecars: bool = False,
    window: float | None = None,
    stride: float | None = None,
    frames: int | None = None,
    fps: float | None = None,
    shots: bool = False,
    tokens: bool = False,
    batch_size: int = 48,
    num_workers: int | None = None,
    precision: str = "fp32",
    reader: str = "pyav",
    timeout: float | None = READ_TIMEOUT,
    folder_fps: float = FRAME_RATE,
    device: str | None = None,
    overwrite: bool = False,
    shard: Shard | None = None,
    context: DistContext | None = None,
) -> Extraction:
    """Embed videos, with the official preprocessing, on every process that torchrun started.

    Args:
        videos: files, folders or patterns, and `list_file` a list of them, as `find_videos` takes them, or
            in their place a table of videos or spans, see `read_video_list`, whose columns travel along.
        checkpoint: weights; None is the released file of `arch`, where `python -m model.download` puts it.
        output: a .safetensors, .npz, .parquet or .h5 file, or with `one_file_each` a folder, of an .npy and a
            .json for each video. Rows are added to those that it has; a video already in
            it is not read again unless it changed, see ResumableTable. A call that was killed goes on where
            it was when it is made again. None writes nothing.
        sidecars: keep what tar files have beside their videos, as columns, see `read_sidecars`.
        window: seconds; one vector for each such piece of a video (see `pieces.cut`), not one for all of it.
        stride: seconds from one window's start to the next; None is `window`.
        frames: of a clip, from 1 to those that the model was trained with, the default.
        fps: frames a second within a window, which alone makes it as long as its frames last.
        folder_fps: frames a second of folders of numbered frames.
        shots: one vector for each shot, or for the windows of each.
        tokens: also keep all tokens, "tokens" [R, L, D] (L = 1 + frames·patches, without the 1 for H/14).
        overwrite: the output is to hold the videos of this call alone.
        shard: embed only this part of the list, into a file of its own; see `ShardFiles` and `merge_shards`.

    Raises:
        ValueError, FileNotFoundError: for wrong arguments, a reader that is not installed, and an output made
            with other settings.
        FloatingPointError: an embedding is not finite; names its video.
        RunError: another run is writing to the output.
        WriteError: the output cannot be written; what was embedded so far is kept where possible.
    """
    check_installed(reader)
    if shots:
        import_scenedetect()
    context = context or join_processes(device)
    listed, failed = list_videos(videos, list_file, sidecars)
    with ExitStack() as at_end:
        if output is None:
            temporary = context.broadcast_object(tempfile.mkdtemp() if context.is_main else None)
            at_end.callback(shutil.rmtree, temporary, ignore_errors=True)
            output = Path(temporary) / "features.safetensors"
        output = check_format(output, tokens, one_file_each)
        encoder = load_encoder(arch, None if checkpoint is None else os.fspath(checkpoint), context)
        workers = default_workers() if num_workers is None else num_workers
        embedder = Embedder(encoder.model, encoder.tokenize, context, batch_size, workers, precision)
        cutting = Cutting.of(
            encoder.num_frames, window, stride, frames, fps, shots, reader, timeout, folder_fps
        )
        metadata = {
            **encoder.metadata,
            "num_frames": cutting.num_frames,
            "precision": precision,
            "reader": reader,
            "window": cutting.window,
            "tokens": tokens,
            # absent where they are not used, as in the features of earlier versions
            "stride": None if cutting.stride == cutting.window else cutting.stride,
            "fps": fps,
            "folder_fps": None if folder_fps == FRAME_RATE else folder_fps,
            "shots": shots or None,
            "list": sorted({*listed.columns, *(["start", "end"] if listed.has_spans else [])}) or None,
        }
        files = None
        if shard is not None:
            if one_file_each:  # said now, not when all are merged
                folders.check_names(output, [clip.path for clip in listed.clips])
            files = ShardFiles.of(output, shard, listed, metadata)
            for other in [] if overwrite else read_shards(files.folder):
                files.check(other)
        wanted = shard.clips(listed) if shard else listed.clips
        clips, unreadable = find_clips_together(wanted, cutting, context)
        clips = each_once(clips, listed.columns)
        failed += unreadable
        target = files.table if files else output
        table = at_end.enter_context(ResumableTable(target, metadata, context, overwrite=overwrite))
        columns = {
            name: take(column, [clip.row for clip in clips]) for name, column in listed.columns.items()
        }
        pending = table.start([clip.key for clip in clips], columns)
        if files and context.is_main:
            files.begin()
        most = min(READ_TOGETHER, batch_size)
        transform, finish = encoder.feature_transform, None
        if context.device.type == "cuda" and isinstance(transform, FeatureTransform):
            deferred = DeferredResize(transform)  # resizing takes a worker nearly as long as decoding
            transform, finish = deferred, deferred.finish
        dataset = ClipDataset(clips, pending, cutting, transform, most)
        items = {number: len(read) for number, read in enumerate(dataset.reads)}
        found, failures = embedder.videos(dataset, items, clips, table, tokens, finish=finish)
        failed += failures.values()
        if files and context.is_main:
            files.complete([clip.row for i, clip in enumerate(clips) if i not in failures], failed)
        return Extraction(found, reasons(failed), len(clips) - len(pending), table.moved, table.others)


def list_videos(
    videos: Sequence[str | Path], list_file: str | Path | None, sidecars: bool
) -> tuple[VideoList, list[Failure]]:
    """What is to be embedded, and folders that cannot be entered. Raises as `find_videos`,
    `read_video_list` and `read_sidecars` do."""
    if list_file is not None and is_table(Path(list_file)):
        if videos:
            raise ValueError(f"{list_file} is a table; name other videos in a row of it, or in another run")
        if sidecars:
            raise ValueError(f"{list_file} is a table with columns of its own: leave out --sidecars")
        return read_video_list(Path(list_file)), []
    files, closed = find_videos(videos, list_file)
    clips = [Clip(file, row=row) for row, file in enumerate(files)]
    columns = read_sidecars(files) if sidecars else {}
    return VideoList(clips, {**columns}), [Failure(*item) for item in closed.items()]


def find_clips_together(
    wanted: Sequence[Clip], cutting: Cutting, context: DistContext
) -> tuple[list[Clip], list[Failure]]:
    """`find_clips` on all processes, each for its share; all get all of it."""
    share = slice(*(len(wanted) * (context.rank + k) // context.world_size for k in (0, 1)))
    found = context.gather_objects(find_clips(wanted[share], cutting))
    return [clip for clips, _ in found for clip in clips], [f for _, failures in found for f in failures]


def each_once(clips: Sequence[Clip], columns: Columns) -> list[Clip]:
    """The clips, without those that are an earlier one: spans that overlap may be cut into the same pieces.

    Raises ValueError, which names both rows, where columns say different things of a piece.
    """
    first: dict[Key, Clip] = {}
    for clip in clips:
        other = first.setdefault(clip.key, clip)
        for name, column in columns.items() if other.row != clip.row else ():
            ours, theirs = column[clip.row], column[other.row]
            if ours != theirs and (ours == ours or theirs == theirs):  # NaN is an empty cell
                raise ValueError(
                    f"{clip.where}: its piece {clip.span} of {clip.path} is one of {other.where}, too, where "
                    f"{name!r} is {theirs!r} and not {ours!r}: extract them into outputs of their own"
                )
    return list(first.values())


def merge_shards(
    output: str | Path,
    *,
    one_file_each: bool = False,
    overwrite: bool = False,
    context: DistContext,
) -> Extraction:
    """Put what `extract_features` has made of all shards of a list into `output`, in the list's order.

    The shards stay, and what `output` had, as if one call had embedded all. Raises ValueError where shards
    are missing, not complete, or not of one list, model and settings; else as `extract_features`.
    """
    output = check_format(output, one_file_each=one_file_each)
    shards = complete_shards(output)
    settings = shards[0].facts["settings"]
    failed = [failure for files in shards for failure in files.facts["failed"]]
    parts = [part for files in shards if (part := files.load(without=("tokens",)))]
    if not parts:
        return Extraction(None, reasons(failed))
    order = np.argsort([row for files in shards for row in files.facts["rows"]], kind="stable").tolist()
    joined = join_tables(parts).take(order)
    columns = {name: joined.columns[name] for name in settings.get("list") or [] if name not in TIMES}
    with ResumableTable(output, settings, context, overwrite=overwrite) as table:
        keys = row_keys(joined)
        pending = table.start(keys, columns)
        left = {keys[i] for i in pending} if context.is_main else set()
        for files in shards if left else []:
            part = files.load()
            if part and (rows := [row for row, key in enumerate(row_keys(part)) if key in left]):
                table.add(part.take(rows))
        return Extraction(
            table.finish(), reasons(failed), len(keys) - len(pending), table.moved, table.others
        )


def reasons(failures: Sequence[Failure]) -> dict[str, str]:
    """Why each file failed, sorted by name; pieces of one may have reasons of their own."""
    by_file: dict[str, dict[str, None]] = defaultdict(dict)
    for path, reason in failures:
        by_file[path][reason] = None
    return {path: "; ".join(found) for path, found in sorted(by_file.items())}


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
