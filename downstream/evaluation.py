"""Evaluations: what all protocols have in common, from data sets to results.

A protocol says which texts are to be embedded and makes figures of embeddings; everything else is here.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from data_loader import build_dataset
from data_loader.dataset import VideoDataset
from data_loader.failures import Failure
from data_loader.labels import ClassRecords
from data_loader.transforms import CroppingTransform, Transform
from downstream.embedding.clips import Clip
from downstream.embedding.embedder import Embedder
from downstream.embedding.encoder import Encoder
from downstream.embedding.resumable_table import ResumableTable
from downstream.embedding.token_cache import TokenCache
from downstream.embedding.windows import SlidingWindows, Views
from downstream.probes.overlap import refuse_overlap
from downstream.prompts import class_names
from downstream.protocol import EmbeddedVideos, Job, Protocol
from downstream.report import (
    Evaluation,
    evaluation_table,
    failed_files,
    write_json,
    write_results,
)
from downstream.report.evaluation_pages import write_report
from downstream.report.runs import would_replace
from downstream.report.trust import alike, bootstrap
from utils.config import ConfigError, resolve_path
from utils.files import check_folder, or_warn
from utils.processes import DistContext
from utils.schema import EvaluationConfig
from utils.text import counted


class UnreadableVideosError(RuntimeError):
    """Videos of the data set could not be read; the message names each."""


@dataclass(frozen=True)
class Embedded:
    """What a protocol measures: the videos of its splits, text -> its embedding [D]; and when that began."""

    splits: list[EmbeddedVideos]
    texts: dict[str, torch.Tensor]
    begin: float


@dataclass(frozen=True)
class Evaluator:
    """An encoder, and what the command line says for whatever is evaluated with it.

    report: where pages go; index: the folder whose index lists them, if it is not the same.
    """

    encoder: Encoder
    context: DistContext
    allow_missing: bool = False
    dsl: bool = False
    report: Path | None = None
    index: Path | None = None

    def open(self, protocol: Protocol, config: EvaluationConfig, folder: Path, command: str) -> Job:
        """The job of a config. Raises FileNotFoundError, ValueError: its data or config cannot be used."""
        if config.sliding_window_stride > 0 and not protocol.windows:
            raise ConfigError(
                "sliding_window_stride works for retrieval and linear probes only, as officially"
            )
        if config.sliding_window_stride > 0 and config.segments * config.crops > 1:
            raise ConfigError(
                "sliding_window_stride and segments × crops are two ways to see a video: take one of them"
            )
        if config.crops > 1 and not isinstance(self.encoder.clip_transform, CroppingTransform):
            raise ConfigError(
                f"crops={config.crops}: {self.encoder.arch} takes whole frames, of which nothing is cropped; "
                "it can be seen in segments"
            )
        most = self.encoder.num_frames
        frames = config.num_frames or most
        if frames > most and not self.encoder.more_frames:
            raise ConfigError(
                f"num_frames is {frames}; {self.encoder.path} takes the {most} it was trained with, at most"
            )
        config = replace(config, num_frames=frames)
        transform = self.encoder.clip_transform
        datasets = [
            open_dataset(config, transform, split if split == "train" else None) for split in protocol.splits
        ]
        for dataset in datasets:
            dataset.records_as(protocol.records)
        if protocol.texts is not None:
            protocol.texts(datasets[-1], config)  # whose mistakes are to show before the work
        if len(datasets) == 2 and not config.allow_overlap:
            refuse_overlap(*datasets)
        return Job(protocol, config, datasets, folder, command)

    def check_folders(self, results: Path) -> None:
        """See before the work that its results, and the page, can be written. Raises WriteError."""
        if self.context.is_main:
            check_folder(results)
            if self.report:
                check_folder(self.report)

    def evaluate(self, job: Job) -> Evaluation | None:
        """Embed and measure; the embeddings are kept in the job's folder. None but on the first process.

        Raises: as `embed`.
        """
        embedded = self.embed(job)
        return self.measure(job, embedded) if self.context.is_main else None

    def embed(self, job: Job) -> Embedded:
        """All that the job's protocol needs of videos and texts. Every process has to call it.

        Raises:
            UnreadableVideosError: some videos cannot be read and `allow_missing` is not set.
            FloatingPointError: an embedding is not finite; names what it is of.
            RunError: all embeddings of videos, or of texts, are the same.
        """
        begin = time.perf_counter()
        splits = [self._embed(job, *pair) for pair in zip(job.protocol.splits, job.datasets, strict=True)]
        failures = [failure for split in splits for failure in split.failures]
        if failures:
            total = sum(map(len, job.datasets))
            allowed = self.allow_missing and all(split.indices for split in splits)
            self._report_failures(failures, total, allowed, job.folder)
        return Embedded(splits, self._embed_texts(job), begin)

    def measure(self, job: Job, embedded: Embedded) -> Evaluation:
        """The figures, on the first process alone."""
        splits = embedded.splits
        measured = job.protocol.measure(*splits, embedded.texts, job.config)
        measured.ties["videos of the same embedding"] = alike(splits[-1].embeds)
        found = [f"{what} {n}" for what, n in measured.ties.items() if n]
        if found:
            print(f"warning: {job.config.name} has ties or duplicates: {', '.join(found)}", file=sys.stderr)
        intervals = {
            way: {kind: bootstrap(*statistic) for kind, statistic in kinds.items()}
            for way, kinds in measured.statistics.items()
        }
        seconds = time.perf_counter() - embedded.begin
        failures = [failure for split in splits for failure in split.failures]
        name, arch = job.protocol.name, self.encoder.arch
        return Evaluation(name, job.config, arch, measured, failures, seconds, intervals)

    def write(self, job: Job, evaluation: Evaluation) -> None:
        """Write results.json and, if it is asked for, the page; say where they are. Raises WriteError."""
        path, sha256 = self.encoder.path, self.encoder.sha256
        checkpoint, file = {"path": str(path), "sha256": sha256}, job.results / "results.json"
        if other := would_replace(file, checkpoint, job.config.data.options()["root"]):
            print(f"warning: {file}: replaces the results of {other}; --output keeps both", file=sys.stderr)
        write_results(job.results, evaluation, checkpoint, job.command)
        print(f"results: {job.results / 'results.json'}")
        if self.report:
            weights = f"weights {path}, SHA-256 {sha256}"
            table = evaluation_table(evaluation, self.dsl, of_classes=False)  # they have a table there
            of = self.report, evaluation, job.datasets[-1]
            page = write_report(*of, weights, table, job.command, self.index)
            print(f"page: {page}")

    def _embedder(self, config: EvaluationConfig) -> Embedder:
        return Embedder(
            self.encoder.model,
            self.encoder.tokenize,
            self.context,
            batch_size=config.batch_size,
            num_workers=config.num_workers or 0,
            precision=config.precision,
            name=config.name,
            refuse_alike=True,
        )

    def _table(self, file: Path, config: EvaluationConfig, **metadata: Any) -> ResumableTable:
        metadata = {**self.encoder.metadata, "precision": config.precision, **metadata}
        return ResumableTable(file, metadata, self.context, disposable=True)

    def _embed(self, job: Job, split: str | None, dataset: VideoDataset) -> EmbeddedVideos:
        """All videos of a split, over sliding windows or in several views if the config asks for them."""
        config = job.config
        stride = -1 if split == "train" else config.sliding_window_stride
        views = 1 if split == "train" else config.segments * config.crops
        each = views > 1 and job.protocol.each_view
        data = config.data.options()
        del data["root"]  # videos may move
        metadata = {
            "num_frames": dataset.num_frames,
            "reader": config.reader,
            "sliding_window_stride": stride,
            "data": data,
        }
        if views > 1:
            metadata |= {"segments": config.segments, "crops": config.crops, "each_view": each}
        if dataset.records.spans is not None:
            metadata["spans"] = True  # rows of another form
        records, places = dataset.records, range(len(dataset)) if self.context.is_main else ()
        clips = [Clip.of_file(records.path(i), records.span(i)) for i in places]
        clips = self.context.broadcast_object(clips)
        folder = job.folder / (split or "")
        if job.protocol.tokens:
            table: ResumableTable | TokenCache = self._token_cache(folder, dataset, views, config, metadata)
        else:
            table = self._table(folder / "video_embeddings.safetensors", config, **metadata)
        with table:
            pending = table.start([clip.key for clip in clips])
            source: Dataset = dataset
            if stride > 0:
                source = SlidingWindows(dataset, stride)
            elif views > 1:
                source = Views(dataset, config.segments, config.crops)
            items = dict.fromkeys(pending, 1)
            rows, failures = self._embedder(config).videos(
                source, items, clips, table, tokens=job.protocol.tokens, each=each
            )
        indices = [i for i in range(len(clips)) if i not in failures]
        embeds = torch.empty(0) if rows is None else torch.from_numpy(rows.features)
        each_embeds = torch.from_numpy(rows.columns["clips"]) if each and rows is not None else None
        tokens = table if isinstance(table, TokenCache) else None
        return EmbeddedVideos(
            *(dataset, indices, embeds, self.context.device, list(failures.values()), each_embeds, tokens),
            head=self.encoder.head,
        )

    def _token_cache(
        self,
        folder: Path,
        dataset: VideoDataset,
        views: int,
        config: EvaluationConfig,
        metadata: dict[str, Any],
    ) -> TokenCache:
        """Where all tokens of a split go; how many there are, the first video that can be read tells."""
        shape: tuple[int, ...] = (1, 1)
        for item in (dataset[i] for i in range(len(dataset))):
            if "missing" not in item:
                _, tokens = next(self._embedder(config).encode_clips(item["video"][None], None))
                shape = (*([views] if views > 1 else []), *tokens.shape[1:])
                break
        metadata = {**self.encoder.metadata, "precision": config.precision, **metadata}
        return TokenCache(folder / "tokens", shape, metadata, self.context)

    def _embed_texts(self, job: Job) -> dict[str, torch.Tensor]:
        """The embeddings [D] of all texts that the protocol needs, on the first process."""
        if job.protocol.texts is None:
            return {}
        texts = list(dict.fromkeys(job.protocol.texts(job.datasets[-1], job.config)))
        with self._table(job.folder / "text_embeddings.safetensors", job.config) as table:
            rows = self._embedder(job.config).texts(texts, table)
        return {} if rows is None else dict(zip(texts, torch.from_numpy(rows.features), strict=True))

    def _report_failures(self, failures: Sequence[Failure], total: int, allowed: bool, folder: Path) -> None:
        """Name every unreadable video on the terminal and in failed_files.json; fail unless allowed."""
        listed = "\n".join(f"  {failure}" for failure in failures)
        message = f"{len(failures)} of {counted(total, 'videos')} cannot be read:\n{listed}"
        if self.context.is_main:
            with or_warn():
                write_json(folder / "failed_files.json", failed_files(failures))
        if not allowed:
            raise UnreadableVideosError(f"{message}\nMend them, or evaluate without them: --allow-missing")
        if self.context.is_main:
            print(f"warning: {message}", file=sys.stderr)


def open_dataset(config: EvaluationConfig, transform: Transform, split: str | None = None) -> VideoDataset:
    """The data set of a config in its evaluation form; items of unreadable files say so.

    `split` other than the config's own ("test" if it has none): the videos of that one, with test clips.
    """
    data = config.data.options()
    name, own_split, root = data.pop("type"), data.pop("split", "test"), resolve_path(data.pop("root"))
    try:
        dataset = build_dataset(
            name,
            split or own_split,
            view="test",
            root=root,
            meta=resolve_path(config.meta),
            num_frames=config.num_frames,
            transform=transform,
            reader=config.reader,
            timeout=config.read_timeout,
            allow_missing=True,
            **data,
        )
    except FileNotFoundError as error:
        source = f"\nWhere to get it: {config.source}" if config.source else ""
        raise FileNotFoundError(f"{error}{source}") from error
    if config.class_names is not None:
        records = dataset.records_as(ClassRecords)
        records.class_names = class_names(config.class_names, records.class_names)
    return dataset
